// Texts for users: reasons and errors, and what to do about each.

import { ApiError, SignInRequired, Unreachable } from "./client.js";

// OpenRouter's page for creating keys.
export const KEYS_URL = "https://openrouter.ai/keys";

export const STATUS = {
  attention: "Needs attention",
  disabled: "Switched off",
  connected: "Connected",
  not_enabled: "Not enabled",
  available: "Available",
};

export const ADD_ON_STATUS = {
  none: "Not subscribed",
  active: "Active",
  past_due: "Payment is due",
  cancelling: "Cancelled",
  suspended: "Suspended",
  ended: "Ended",
};

export const PAYER = {
  openrouter: "Your OpenRouter account",
  greta_credits: "Greta credits",
  none: "Nobody",
};

// The routing table's reasons, by payer.
const REASON = {
  openrouter: {
    always_use_key: "“Always use this key” is on, so every AI call goes through your key.",
    key_enabled:
      "your key is connected and switched on. If OpenRouter cannot make a call, Greta makes it on its own AI and uses credits.",
  },
  greta_credits: {
    not_connected: "no OpenRouter key is connected.",
    key_disabled: "your key is switched off.",
    key_rejected: "OpenRouter no longer accepts your key.",
    add_on_inactive: "the OpenRouter add-on is not active.",
  },
  none: {
    add_on_inactive:
      "“Always use this key” is on, but the OpenRouter add-on is not active. Subscribe again, or switch “Always use this key” off to use credits.",
    minimum_balance:
      "calls through your key need a minimum credit balance, and yours is below it. Buy credits to continue.",
    insufficient_credits: "calls are made on Greta’s own AI now, and your credits do not cover one.",
  },
};

export function reason(payer, reason) {
  return REASON[payer]?.[reason] ?? `the reason is “${reason}”.`;
}

export const ENTRY_KIND = {
  grant: "Granted",
  purchase: "Purchase",
  call: "AI call",
  add_on: "OpenRouter add-on",
  refund: "Refund",
  reversal: "Reversal",
  adjustment: "Adjustment",
};

// Errors that the page can explain better than the API's own text.
const ERROR = {
  invalid_key_format:
    "This is not an OpenRouter API key. A key begins with sk-or-v1-. Copy the whole key and paste it again.",
  key_rejected:
    "OpenRouter does not accept this key. It may have been deleted, or copied only in part. Copy it again, or create a new key.",
  management_key:
    "This is a management key, which cannot make AI calls. Create an ordinary API key and paste that one.",
  add_on_required: "Connecting a key needs the OpenRouter add-on. Subscribe first; nothing was saved.",
  openrouter_unavailable:
    "OpenRouter is not responding at the moment, so the key could not be checked. Nothing was changed. Try again in a minute.",
  not_owner: "Only an owner of the account can change this. Ask one of them.",
  not_connected: "There is no longer a key: it was disconnected elsewhere.",
  always_use_key_on: "“Always use this key” is on, so your key stays in use. Switch both off?",
  payment_in_progress:
    "It is not known yet whether an earlier payment succeeded. You are not charged twice: try again in a few minutes.",
  payment_provider_unavailable:
    "The payment page could not be opened. Try again in a minute.",
  already_subscribed:
    "The add-on is already active. If it was cancelled and cannot be resumed, it stays until its end date and can be bought again then.",
  insufficient_credits: "Your credits do not cover this. Buy credits first; nothing was charged.",
  add_on_not_needed: "Your plan includes OpenRouter: no add-on is needed.",
  account_not_found: "This sign-in does not belong to a Greta account. Sign in as another user.",
};

// The error as `{text, code, retryable}`; retryable: the same request may succeed later. A bug in
// the page is also reported to the browser.
export function explain(error) {
  if (error instanceof SignInRequired) {
    return { text: "Your sign-in has expired. Sign in again to continue.", code: "sign_in", retryable: true };
  }
  if (error instanceof Unreachable) {
    const text = navigator.onLine
      ? "Greta is not responding. Try again in a moment."
      : "You are offline. Try again when you are connected.";
    return { text, code: "unreachable", retryable: true };
  }
  if (error instanceof ApiError) {
    const retryable = error.status >= 500 || error.status === 429;
    return { text: errorText(error), code: error.code, retryable };
  }
  reportError(error);
  return { text: "Something went wrong on this page. Reload it.", code: "unexpected", retryable: true };
}

function errorText(error) {
  if (error.code === "too_many_attempts") {
    const minutes = Math.max(1, Math.ceil((error.retryAfter ?? 3600) / 60));
    const wait = minutes === 1 ? "a minute" : `${minutes} minutes`;
    const [limit] = error.message.split(";");
    return `Too many attempts: ${limit}. Try again in ${wait}.`;
  }
  if (ERROR[error.code]) return ERROR[error.code];
  if (error.status >= 500) return "Something went wrong on our side. Nothing is lost: try again in a moment.";
  return sentence(error.message);
}

function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

export function date(text) {
  return new Intl.DateTimeFormat("en", { dateStyle: "long" }).format(new Date(text));
}

// A calendar day, the same in every time zone.
export function day(text) {
  return new Intl.DateTimeFormat("en", { dateStyle: "long", timeZone: "UTC" }).format(new Date(text));
}

export function dateTime(text) {
  return new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" }).format(new Date(text));
}

export function time(date) {
  return new Intl.DateTimeFormat("en", { timeStyle: "short" }).format(date);
}

// The number of whole days from now.
export function daysUntil(text) {
  return Math.floor((new Date(text) - Date.now()) / 86_400_000);
}

export function credits(amount) {
  return amount === "1" ? "1 Greta credit" : `${amount} Greta credits`;
}

// The amount, a decimal string, with its sign.
export function signed(credits) {
  return credits.startsWith("-") ? `−${credits.slice(1)}` : `+${credits}`;
}
