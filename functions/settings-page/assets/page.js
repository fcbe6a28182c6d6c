// The pages' frame: signs the user in and configures the elements.

import "./openrouter-integration.js";
import "./openrouter-plans.js";
import "./greta-credits.js";
import { Session } from "./session.js";

const { oidcAuthority, oidcClientId, root, priceInCredits, extraModule } = document.body.dataset;
const session = new Session({ authority: oidcAuthority, clientId: oidcClientId });
const elements = document.querySelectorAll("openrouter-integration, openrouter-plans, greta-credits");
const views = document.querySelectorAll("[data-view]");

function show(name) {
  for (const view of views) view.hidden = view.dataset.view !== name;
}

async function start() {
  show("wait");
  let user;
  try {
    user = await session.begin();
  } catch {
    return show("unreachable");
  }
  if (!user) return show("signed-out");
  signedIn(user);
}

async function signedIn(user) {
  document.querySelector("[data-user]").textContent = user.email ?? user.account_id ?? user.sub;
  document.querySelector("[data-signed-in]").hidden = false;
  const query = new URLSearchParams(location.search);
  const [checkout, order] = [query.get("checkout"), query.get("order")];
  for (const element of elements) {
    element.getToken = session.getToken;
    if (checkout) element.checkout = checkout;
    if (order) element.order = order;
    element.priceInCredits = priceInCredits;
  }
  // A reload must not announce the payment again.
  if (checkout) history.replaceState(null, "", location.pathname + location.hash);
  show("ready");
  const credits = document.querySelector("greta-credits");
  if (credits && location.hash === "#credits") credits.focus();
  if (extraModule) {
    const { mount } = await import(new URL(extraModule, new URL(root, location.href)));
    mount(document.querySelector("main"), { root: new URL(root, location.href), getToken: session.getToken });
  }
}

async function signOut() {
  if (await session.signOut()) return;
  // The authority still knows the user, so a redirect would sign them in again at once.
  for (const element of elements) element.remove();
  document.querySelector("[data-signed-in]").hidden = true;
  show("signed-out");
}

function orUnreachable(work) {
  return () => work().catch(() => show("unreachable"));
}

document.addEventListener("openrouter-sign-in", orUnreachable(() => session.renew()));
document.addEventListener("openrouter-buy-credits", (event) => {
  const credits = document.querySelector("greta-credits");
  if (!credits) return;
  event.preventDefault();
  credits.focus();
});
document.querySelector("#sign-in").addEventListener("click", orUnreachable(() => session.signIn()));
document.querySelector("#sign-out").addEventListener("click", orUnreachable(signOut));
document.querySelector("#again").addEventListener("click", start);

start();
