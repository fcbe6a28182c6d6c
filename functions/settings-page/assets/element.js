// The base of the three elements: loads and shows data from the API, runs one action at a time, and
// keeps all tabs in step.
//
// Invariant: data that was requested before a change is not shown after it.

import { LitElement, html, nothing } from "./lit.js";
import { Client, SignInRequired } from "./client.js";
import { style } from "./style.js";
import { explain, time } from "./words.js";

// The data also changes elsewhere: credits are spent, periods end.
const REFRESH_MS = 20_000;

// Stripe reports a payment to Greta, usually within seconds. The wait for it is limited.
const WAIT_STEP_MS = 1_500;
const WAIT_MS = 120_000;

// Events after which the data may be stale.
const REFRESH_EVENTS = ["focus", "online", "offline"];

// Returned by an action that leaves the page, and how long the next page may take to load.
const LEAVES = Symbol("leaves");
const LEAVING_MS = 15_000;

export class GretaElement extends LitElement {
  static styles = style;

  static properties = {
    // The API's base URL, by default the element's own server.
    apiBase: { attribute: "api-base" },
    // `getToken({refresh})`: the access token or null; `refresh`: the last one was not accepted.
    getToken: { attribute: false },
    data: { state: true },
    // Why `data` could not be loaded or refreshed.
    failure: { state: true },
    // The name of the running action.
    pending: { state: true },
    // The result of the last action: `{kind: "success" | "error", text, code, next}`.
    note: { state: true },
    // "waiting" for a payment, or "late".
    waiting: { state: true },
  };

  #turn = 0;
  // A refresh was requested during an action.
  #refreshDue = false;
  #arrived;
  #asOf = new Date();
  #timer;
  #channel;

  // Loads the data that the element shows.
  async load() {
    throw new Error("not implemented");
  }

  // Only owners may change anything.
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
    for (const event of REFRESH_EVENTS) window.addEventListener(event, this.#seen);
    window.addEventListener("pageshow", this.#back);
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.#channel.close();
    clearInterval(this.#timer);
    document.removeEventListener("visibilitychange", this.#seen);
    for (const event of REFRESH_EVENTS) window.removeEventListener(event, this.#seen);
    window.removeEventListener("pageshow", this.#back);
  }

  #seen = () => document.hidden || this.refresh();

  // The browser restored the page from before the payment page.
  #back = (event) => {
    if (event.persisted) {
      this.pending = null;
      this.refresh();
    }
  };

  updated(changed) {
    if ((changed.has("getToken") || changed.has("apiBase")) && this.getToken) this.refresh();
  }

  // Loads the data again, unless a running action will set newer data.
  async refresh() {
    this.#refreshDue = Boolean(this.pending);
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

  // Runs one action, unless another one is running. `work` throws the API's error, and `refused`
  // shows it.
  async act(name, work, refused = this.refused) {
    if (this.pending) return;
    this.pending = name;
    this.note = null;
    this.#turn += 1;
    this.#refreshDue = false;
    try {
      if ((await work()) === LEAVES) {
        // No button can be pressed while the next page loads.
        setTimeout(() => (this.pending = null), LEAVING_MS);
        return;
      }
      this.#isCurrent();
    } catch (error) {
      refused.call(this, error);
      // The action may have failed because the data was stale.
      this.#refreshDue = this.failure?.code !== "sign_in";
    }
    this.pending = null;
    this.#tellOthers();
    if (this.#refreshDue) await this.refresh();
  }

  // Refreshes the other elements of the page, and other tabs.
  #tellOthers() {
    this.#channel.postMessage("changed");
  }

  refused(error) {
    const problem = explain(error);
    if (error instanceof SignInRequired) this.failure = problem;
    else this.note = { kind: "error", ...problem };
  }

  // Polls until `arrived(data)` returns a text for the user.
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

  // Always in the document, like the notes.
  wait() {
    return html`<div aria-live="polite">${
      {
        waiting: html`<p><label for="waiting">Waiting for your payment to be confirmed…</label><progress id="waiting"></progress></p>`,
        late: html`<p class="note warn">Your payment is not confirmed yet. This can take a few minutes; you do not need to pay again.
            <button type="button" class="link" data-action="wait" @click=${() => this.waitFor(this.#arrived)}>Check again</button></p>`,
      }[this.waiting] ?? nothing
    }</div>`;
  }

  // Goes to another of our pages, unless the embedding page handles the event.
  goTo(name, address) {
    const url = new URL(address, this.base).href;
    if (this.tell(name, { url })) location.assign(url);
  }

  // A button that leads to the page where credits are bought.
  buyCredits({ kind } = {}) {
    const go = () => this.goTo("openrouter-buy-credits", this.creditsUrl || "settings/integrations#credits");
    return this.button("credits", "Buy credits", go, { kind, editing: false });
  }

  // Goes to the payment page, unless the embedding page handles the event.
  leaveFor(url) {
    if (!this.tell("openrouter-checkout", { url })) return undefined;
    location.assign(url);
    return LEAVES;
  }

  // False if a listener prevents the default action.
  tell(name, detail) {
    return this.dispatchEvent(
      new CustomEvent(name, { detail, bubbles: true, composed: true, cancelable: true }),
    );
  }

  // A button that runs an action. While it is disabled it stays focusable, so that a screen reader
  // can read out why.
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

  // Always in the document, so that screen readers announce new content.
  notes() {
    const note = this.note;
    return html`<div aria-live="polite" class="notes">${
      note
        ? html`<p class="note ${note.kind}" tabindex="-1" data-code=${note.code ?? nothing}>${note.text} ${note.next?.() ?? nothing}</p>`
        : nothing
    }${
      this.failure && this.data
        ? html`<p class="note error" data-code=${this.failure.code}>${this.failure.text} This page shows the state as of <time>${time(this.#asOf)}</time>. ${this.retry()}</p>`
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

  // Moves the focus when the pressed button has disappeared.
  async focusOn(selector) {
    await this.updateComplete;
    this.renderRoot.querySelector(selector)?.focus();
  }

  // Shown until the data is loaded.
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
