// What the three elements have in common: asking the API and showing what it answers, one action at a
// time, and one idea of what is true in all tabs.
//
// Invariant: what was asked before a change was made is not shown after it.

import { LitElement, html, nothing } from "./lit.js";
import { Client, SignInRequired } from "./client.js";
import { style } from "./style.js";
import { explain, time } from "./words.js";

// What is shown may have changed elsewhere: credits are spent, periods end.
const REFRESH_MS = 20_000;

// A payment is told by its provider to Greta, and seen here some seconds later; not for ever is it waited for.
const WAIT_STEP_MS = 1_500;
const WAIT_MS = 120_000;

// When it is asked again besides that: what is shown then says whether it is still so.
const SEEN_AGAIN = ["focus", "online", "offline"];

// What an action says that ends with another page, and how long that page may take to come.
const LEAVES = Symbol("leaves");
const LEAVING_MS = 15_000;

export class GretaElement extends LitElement {
  static styles = style;

  static properties = {
    // Where the API is; the element's own server unless it is set.
    apiBase: { attribute: "api-base" },
    // `getToken({refresh})`: the access token, or null. `refresh`: the last one was not accepted.
    getToken: { attribute: false },
    data: { state: true },
    // Why `data` could not be had, or brought up to date.
    failure: { state: true },
    // The name of the action under way.
    pending: { state: true },
    // What came of the last one: `{kind: "success" | "error", text}`, an error's code, and what to do next.
    note: { state: true },
    // "waiting" for a payment to arrive, or "late".
    waiting: { state: true },
  };

  #turn = 0;
  // A refresh was asked for during an action.
  #missed = false;
  #arrived;
  #asOf = new Date();
  #timer;
  #channel;

  // The API's answers that this element shows.
  async load() {
    throw new Error("not implemented");
  }

  // Members of an account see what its owners may change.
  get mayEdit() {
    return this.data?.can_edit ?? true;
  }

  get base() {
    const base = new URL(this.apiBase || new URL("../../", import.meta.url), document.baseURI);
    if (!base.pathname.endsWith("/")) base.pathname += "/";
    return base;
  }

  get client() {
    return new Client(this.base, this.getToken);
  }

  connectedCallback() {
    super.connectedCallback();
    this.#channel = new BroadcastChannel("greta-openrouter");
    this.#channel.onmessage = () => this.refresh();
    this.#timer = setInterval(() => document.hidden || this.refresh(), REFRESH_MS);
    document.addEventListener("visibilitychange", this.#seen);
    for (const event of SEEN_AGAIN) window.addEventListener(event, this.#seen);
    window.addEventListener("pageshow", this.#back);
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.#channel.close();
    clearInterval(this.#timer);
    document.removeEventListener("visibilitychange", this.#seen);
    for (const event of SEEN_AGAIN) window.removeEventListener(event, this.#seen);
    window.removeEventListener("pageshow", this.#back);
  }

  #seen = () => document.hidden || this.refresh();

  // The browser kept the page as it was when the payment page was opened.
  #back = (event) => {
    if (event.persisted) {
      this.pending = null;
      this.refresh();
    }
  };

  updated(changed) {
    if ((changed.has("getToken") || changed.has("apiBase")) && this.getToken) this.refresh();
  }

  // Asks again, unless an action is under way, whose answer is the newer one.
  async refresh() {
    this.#missed = Boolean(this.pending);
    if (this.pending || !this.getToken) return;
    const turn = ++this.#turn;
    try {
      const data = await this.load();
      if (turn !== this.#turn) return;
      this.data = data;
      this.#isCurrent();
    } catch (error) {
      const failure = explain(error);
      if (turn === this.#turn) this.failure = failure;
    }
  }

  #isCurrent() {
    this.failure = null;
    this.#asOf = new Date();
  }

  // Carries out one action; another one that is asked for meanwhile is not. `work` throws what the API
  // refuses; `refused` shows it.
  async act(name, work, refused = this.refused) {
    if (this.pending) return;
    this.pending = name;
    this.note = null;
    this.#turn += 1;
    this.#missed = false;
    try {
      if ((await work()) === LEAVES) {
        // Nothing is pressed twice while the page is being left.
        setTimeout(() => (this.pending = null), LEAVING_MS);
        return;
      }
      this.#isCurrent();
    } catch (error) {
      refused.call(this, error);
      // What was refused may rest on what is not so any more.
      this.#missed = this.failure?.code !== "sign_in";
    }
    this.pending = null;
    this.#tellOthers();
    if (this.#missed) await this.refresh();
  }

  // The other elements of the page, and other tabs.
  #tellOthers() {
    this.#channel.postMessage("changed");
  }

  refused(error) {
    const problem = explain(error);
    if (error instanceof SignInRequired) this.failure = problem;
    else this.note = { kind: "error", ...problem };
  }

  // Asks until `arrived(data)` has something to say.
  async waitFor(arrived) {
    if (this.waiting === "waiting") return;
    this.waiting = "waiting";
    this.#arrived = arrived;
    const end = Date.now() + WAIT_MS;
    while (this.isConnected && this.waiting === "waiting") {
      await new Promise((resume) => setTimeout(resume, this.data ? WAIT_STEP_MS : 200));
      const text = this.data && arrived(this.data);
      if (text) {
        this.waiting = null;
        this.note = { kind: "success", text };
        this.#tellOthers();
      } else if (Date.now() > end) {
        this.waiting = "late";
      } else if (this.data) {
        await this.refresh();
      }
    }
  }

  // Always there, as the notes are.
  wait() {
    return html`<div aria-live="polite">${
      {
        waiting: html`<p><label for="waiting">Waiting for your payment to be confirmed…</label><progress id="waiting"></progress></p>`,
        late: html`<p class="note warn">Your payment is not confirmed yet. That can take some minutes; you need not pay again.
            <button type="button" class="link" data-action="wait" @click=${() => this.waitFor(this.#arrived)}>Check again</button></p>`,
      }[this.waiting] ?? nothing
    }</div>`;
  }

  // Goes to another page of ours, unless whoever embeds the element does it otherwise.
  goTo(name, address) {
    const url = new URL(address, this.base).href;
    if (this.tell(name, { url })) location.assign(url);
  }

  // A button that leads to where credits are bought.
  buyCredits({ kind } = {}) {
    const go = () => this.goTo("openrouter-buy-credits", this.creditsUrl || "settings/integrations#credits");
    return this.button("credits", "Buy credits", go, { kind, editing: false });
  }

  // Goes to the payment page, unless whoever embeds the element does it otherwise.
  leaveFor(url) {
    if (!this.tell("openrouter-checkout", { url })) return undefined;
    location.assign(url);
    return LEAVES;
  }

  // False where a listener prevents what would happen by default.
  tell(name, detail) {
    return this.dispatchEvent(
      new CustomEvent(name, { detail, bubbles: true, composed: true, cancelable: true }),
    );
  }

  // A button of an action: pressed once, and never by who may not. It stays focusable then, so that the
  // reason is found.
  button(name, label, run, { kind = "", busy = "One moment…", editing = true } = {}) {
    const forbidden = editing && !this.mayEdit;
    const off = forbidden || Boolean(this.pending);
    const press = (event) => (off ? event.preventDefault() : run(event));
    return html`<button
      type="button"
      class=${kind}
      data-action=${name}
      aria-disabled=${off ? "true" : nothing}
      aria-describedby=${forbidden ? "members" : nothing}
      @click=${press}
    >${this.pending === name ? busy : label}</button>`;
  }

  // Always there, so that what appears in it is read out.
  notes() {
    const note = this.note;
    return html`<div aria-live="polite" class="notes">${
      note
        ? html`<p class="note ${note.kind}" tabindex="-1" data-code=${note.code ?? nothing}>${note.text} ${note.next?.() ?? nothing}</p>`
        : nothing
    }${
      this.failure && this.data
        ? html`<p class="note error" data-code=${this.failure.code}>${this.failure.text} What you see is as it was at <time>${time(this.#asOf)}</time>. ${this.retry()}</p>`
        : nothing
    }</div>`;
  }

  retry() {
    if (this.failure.code === "sign_in") return this.signIn();
    const again = async () => {
      await this.refresh();
      this.focusOn("#title");
    };
    return html`<button type="button" class="link" data-action="retry" @click=${again}>Try again</button>`;
  }

  signIn() {
    return html`<button type="button" class="link" data-action="sign-in" @click=${() => this.tell("openrouter-sign-in")}>Sign in again</button>`;
  }

  // Where the reader goes on after what was pressed is gone.
  async focusOn(selector) {
    await this.updateComplete;
    this.renderRoot.querySelector(selector)?.focus();
  }

  // What is shown before there is anything to show.
  placeholder(title) {
    return html`<section class="card stack" aria-labelledby="title" aria-busy=${this.failure ? "false" : "true"}>
      <h2 id="title" tabindex="-1">${title}</h2>
      <div aria-live="polite">${
        this.failure
          ? html`<p class="note error" data-code=${this.failure.code}>${this.failure.text} ${this.retry()}</p>`
          : html`<p class="loading"><span class="spinner" aria-hidden="true"></span>Loading…</p>`
      }</div>
    </section>`;
  }
}
