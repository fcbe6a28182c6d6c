// Facts derived from the integration card, for `<openrouter-integration>`.

import { html, nothing } from "./lit.js";
import { KEYS_URL, credits, date, daysUntil } from "./words.js";

// The reasons why calls fail or are not paid for as the user wants, now or soon. Entitlement is not
// decided here; it is read from the API's response.
export function causes({ status, plan, key, add_on: addOn, next_call: next }) {
  const found = [];
  const isRejected = key?.state === "rejected";
  const isPastDue = plan === "standard" && addOn.status === "past_due";
  const needs = next.reason === "minimum_balance" ? "minimum" : next.reason === "insufficient_credits" ? "insufficient" : null;
  const isExplained = isRejected || isPastDue || needs === "minimum";
  const isLapsed =
    ["none", "suspended", "ended"].includes(addOn.status) ||
    next.reason === "add_on_inactive" ||
    (status === "attention" && !isExplained);
  if (isPastDue) found.push("past_due");
  else if (plan === "standard" && key && isLapsed) found.push("lapsed");
  if (isRejected) found.push("rejected");
  if (needs) found.push(needs);
  return found;
}

// Whether a cancelled add-on's paid period is over; the next billing tick then ends the add-on.
export function isOver({ status, paid_through: until }) {
  return status === "cancelling" && new Date(until) <= Date.now();
}

// The add-on's monthly price, in dollars or in credits.
export function price({ price_usd: usd }, inCredits) {
  return inCredits ? credits(inCredits) : `$${usd}`;
}

// A link to the key at OpenRouter.
export function revoke(key) {
  return html`<a href="${KEYS_URL}/${key.sha256}" target="_blank" rel="noopener noreferrer">revoke it there</a>`;
}

// The rest of the key's limit, if OpenRouter reports it.
export function limit({ limit_usd: all, limit_remaining_usd: left }) {
  if (left === null) return nothing;
  const low = Number(left) <= 0 || (all !== null && Number(left) < 0.1 * Number(all));
  return html`<dt>Limit left</dt>
    <dd data-warning=${low ? "limit" : nothing}>$${left}${all === null ? "" : ` of $${all}`}${low ? html` <strong>– less than a tenth is left; raise the limit at OpenRouter</strong>` : nothing}</dd>`;
}

// The key's expiry date, if it has one.
export function expiry({ expires_at: at }) {
  // OpenRouter's own text, which may not be a date.
  if (Number.isNaN(Date.parse(at))) return nothing;
  const days = daysUntil(at);
  const soon = days < 7;
  const when = days < 0 ? "it has expired" : "replace the key before then";
  return html`<dt>Expires</dt>
    <dd data-warning=${soon ? "expiry" : nothing}><time datetime=${at}>${date(at)}</time>${soon ? html` <strong>– ${when}</strong>` : nothing}</dd>`;
}

// Whether the add-on is paid for, or not needed.
export function isPaid({ plan, add_on: addOn }) {
  return plan === "enterprise" || addOn.status === "active" || addOn.status === "cancelling";
}
