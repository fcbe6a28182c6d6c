// <openrouter-integration>: connect an OpenRouter key, switch it, and see who pays next.
//
// Invariant: the key goes from its field into one request and nowhere else; no property, attribute
// or storage ever contains it.

import { html, nothing } from "./lit.js";
import { GretaElement } from "./element.js";
import { causes, expiry, isOver, isPaid, limit, price, revoke } from "./facts.js";
import { ADD_ON_STATUS, KEYS_URL, PAYER, STATUS, date, dateTime, explain, reason } from "./words.js";

export class OpenRouterIntegration extends GretaElement {
  static properties = {
    // The outcome of the payment page: "done", "card" or "cancelled".
    checkout: {},
    // The address of the page where the add-on is bought.
    plansUrl: { attribute: "plans-url" },
    // The address of the page where credits are bought.
    creditsUrl: { attribute: "credits-url" },
    // The add-on's monthly price in credits, if it is paid for in credits.
    priceInCredits: { attribute: "price-in-credits" },
    keyFormOpen: { state: true },
    // Why the key was not saved.
    keyProblem: { state: true },
  };

  load() {
    return this.client.integration();
  }

  willUpdate(changed) {
    if (!changed.has("checkout")) return;
    const text = {
      card: "Thank you. The next payment will be charged to your new card.",
      cancelled: "You left the payment page.",
    }[this.checkout];
    if (text) this.note = { kind: "success", text };
    if (this.checkout === "done") this.waitFor((card) => isPaid(card) && "Thank you: OpenRouter is enabled.");
  }

  updated(changed) {
    super.updated(changed);
    if (changed.has("data") && this.data) this.tell("openrouter-change", { integration: this.data });
  }

  render() {
    const card = this.data;
    if (!card) return this.placeholder("OpenRouter");
    return html`<section class="card stack" aria-labelledby="title" aria-busy=${Boolean(this.pending)} data-status=${card.status}>
      <div class="head">
        <h2 id="title" tabindex="-1">OpenRouter</h2>
        <span class="badge ${BADGE[card.status] ?? ""}">${STATUS[card.status] ?? card.status}</span>
      </div>
      <p class="muted">Bring your own key: AI calls go through your OpenRouter account, which bills you directly.</p>
      ${this.mayEdit ? nothing : html`<p id="members" class="note warn">You are a member of this account: you can see these settings, but only an owner can change them.</p>`}
      ${this.wait()}
      ${this.notes()}
      <div class="banners" aria-live="polite">${causes(card).map((cause) => this.#banner(cause))}</div>
      ${this.#payer(card)}
      ${card.key ? this.#connected(card) : this.#notConnected(card)}
      ${card.plan === "standard" && card.add_on.status !== "none" ? this.#addOn(card) : nothing}
      ${this.#confirmations(card)}
    </section>`;
  }

  #payer({ next_call: next }) {
    const why = reason(next.payer, next.reason);
    const joint = next.payer === "none" ? ": " : ", because ";
    return html`<p class="payer ${next.payer}" role="status" data-payer=${next.payer} data-reason=${next.reason}>
      Who pays for the next AI call: <strong>${PAYER[next.payer]}</strong>${joint}${why}
    </p>`;
  }

  #banner(cause) {
    const { text, action } = CAUSE[cause];
    // No second payment is offered while one is awaited.
    const isPaying = this.waiting === "waiting" && ["past_due", "lapsed"].includes(cause);
    return html`<div class="note warn banner" data-cause=${cause}><p>${text(this.data)}</p>${isPaying ? nothing : action(this)}</div>`;
  }

  #notConnected(card) {
    // An error stays visible even if no key can be saved any more.
    if (this.keyFormOpen && (card.status !== "not_enabled" || this.keyProblem)) return this.#keyForm();
    if (card.status === "not_enabled" && this.waiting === "waiting") return nothing;
    if (card.status === "not_enabled") {
      return html`<section>
        <h3>OpenRouter is not enabled</h3>
        <p>Your plan needs the OpenRouter add-on for ${price(card.add_on, this.priceInCredits)} a month. Model usage is billed by OpenRouter.</p>
        <div class="row">${this.button("subscribe", "Subscribe", () => this.goToPlans(), { kind: "primary" })}</div>
      </section>`;
    }
    return html`<section>
      <p>${card.plan === "enterprise" ? "OpenRouter is included in your plan. " : nothing}Connect your OpenRouter API key to use it.</p>
      <div class="row">${this.button("connect", "Connect", () => this.openKeyForm(), { kind: "primary" })}</div>
    </section>`;
  }

  #connected(card) {
    const { key } = card;
    return html`<section>
        <h3>Your key</h3>
        <dl class="facts">
          <dt>Key</dt><dd><code>${key.label || `…${key.last4}`}</code></dd>
          <dt>Saved</dt><dd>by ${key.saved_by}, <time datetime=${key.saved_at}>${dateTime(key.saved_at)}</time></dd>
          <dt>Checked</dt><dd><time datetime=${key.checked_at}>${dateTime(key.checked_at)}</time></dd>
          ${limit(key)}${expiry(key)}
        </dl>
        ${
          this.keyFormOpen
            ? this.#keyForm()
            : html`<div class="row">
                ${this.button("test", "Test", () => this.#test(), { busy: "Testing…" })}
                ${this.button("replace", "Replace", () => this.openKeyForm())}
                ${this.button("disconnect", "Disconnect", () => this.#ask("disconnect"), { kind: "danger", busy: "Disconnecting…" })}
              </div>`
        }
      </section>
      <section>
        <h3>How your key is used</h3>
        ${this.#switch("enabled", "Use this key", card.enabled, "On: AI calls go through your key. Off: Greta uses its own AI and your credits.")}
        ${this.#switch("always_use_key", "Always use this key", card.always_use_key, "On: every AI call goes through your key and credits are never touched, even if OpenRouter fails. Off: Greta falls back to its own AI and credits.")}
      </section>`;
  }

  #switch(name, title, on, meaning) {
    const off = !this.mayEdit || Boolean(this.pending);
    return html`<div class="switch">
      <p class="name" id="${name}-name">${title}</p>
      <p class="muted small" id="${name}-meaning">${meaning}</p>
      <button
        type="button"
        role="switch"
        data-action=${name}
        aria-checked=${on ? "true" : "false"}
        aria-labelledby="${name}-name"
        aria-describedby="${name}-meaning${this.mayEdit ? "" : " members"}"
        aria-disabled=${off ? "true" : nothing}
        @click=${() => off || this.#flip({ [name]: !on })}
      ></button>
    </div>`;
  }

  #keyForm() {
    const problem = this.keyProblem;
    const busy = this.pending === "save";
    return html`<form class="stack" @submit=${this.#save} novalidate>
      <div>
        <label for="key">OpenRouter API key</label>
        <input
          id="key"
          type="password"
          autocomplete="off"
          autocapitalize="off"
          spellcheck="false"
          data-1p-ignore
          data-lpignore="true"
          placeholder="sk-or-v1-…"
          aria-describedby="key-help${problem ? " key-problem" : ""}"
          aria-invalid=${problem ? "true" : "false"}
          ?readonly=${busy}
        />
      </div>
      <p id="key-help" class="muted small">Create one at <a href=${KEYS_URL} target="_blank" rel="noopener noreferrer">openrouter.ai/keys</a>. It is stored encrypted and never shown again.</p>
      <div aria-live="assertive">${
        problem
          ? html`<p id="key-problem" class="note error" data-code=${problem.code}>${problem.text}
              ${KEY_LINK[problem.code]?.(this) ?? nothing}</p>`
          : nothing
      }</div>
      <div class="row">
        <button type="submit" class="primary" data-action="save" aria-disabled=${this.pending ? "true" : nothing}>${busy ? "Checking your key…" : "Save"}</button>
        ${this.button("close", "Cancel", () => this.#closeKeyForm(), { editing: false })}
      </div>
    </form>`;
  }

  async openKeyForm() {
    this.note = null;
    this.keyProblem = null;
    this.keyFormOpen = true;
    await this.updateComplete;
    this.#field?.focus();
  }

  get #field() {
    return this.renderRoot.querySelector("#key");
  }

  #closeKeyForm() {
    this.#forgetKey();
    this.focusOn('[data-action="connect"], [data-action="replace"], [data-action="subscribe"]');
  }

  // Clears the field before it is removed.
  #forgetKey() {
    if (this.#field) this.#field.value = "";
    this.keyFormOpen = false;
    this.keyProblem = null;
  }

  #save = (event) => {
    event.preventDefault();
    const key = this.#field.value.trim();
    if (!key) {
      this.keyProblem = { code: "empty", text: "Paste your OpenRouter API key first." };
      this.#field.focus();
      return;
    }
    this.keyProblem = null;
    const save = async () => {
      const { message, integration } = await this.client.saveKey(key);
      this.#forgetKey();
      this.data = integration;
      this.#say(message);
    };
    this.act("save", save, this.#notSaved);
  };

  #notSaved(error) {
    const problem = explain(error);
    if (!problem.retryable && this.#field) this.#field.value = "";
    this.keyProblem = problem;
    this.#field?.focus();
  }

  #test() {
    this.act("test", async () => {
      const { integration } = await this.client.testKey();
      this.data = integration;
      // Otherwise a banner explains the problem.
      if (integration.key?.state === "usable") this.#say("OpenRouter accepts your key.");
    });
  }

  #flip(switches) {
    this.act(Object.keys(switches)[0], async () => {
      this.data = (await this.client.switch(switches)).integration;
    });
  }

  refused(error) {
    super.refused(error);
    if (error.code !== "always_use_key_on") return;
    const bothOff = () => {
      this.#flip({ enabled: false, always_use_key: false });
      this.focusOn('[data-action="enabled"]');
    };
    this.note.next = () => this.button("both", "Switch both off", bothOff, { kind: "link" });
  }

  #disconnect() {
    this.act("disconnect", async () => {
      const gone = this.data.key;
      this.data = (await this.client.disconnect()).integration;
      this.#say(html`Your key is disconnected. ${gone ? html`It still works at OpenRouter until you ${revoke(gone)}.` : nothing}`);
    });
  }

  #cancel() {
    this.act("cancel", async () => {
      this.data = (await this.client.cancelSubscription()).integration;
      const { status, paid_through: until } = this.data.add_on;
      this.#say(status === "cancelling" ? `The add-on is cancelled. It stays until ${date(until)}.` : "The add-on is cancelled.");
    });
  }

  // Resumes a cancelled add-on, or goes to the page where the open period is paid.
  pay(name) {
    this.act(name, async () => {
      const { checkout_url: url, integration } = await this.client.subscribe();
      this.data = integration;
      if (url) return this.leaveFor(url);
      this.#say("The add-on continues.");
    });
  }

  #replaceCard() {
    const replace = async () => this.leaveFor((await this.client.replaceCard()).checkout_url);
    this.act("card", replace, (error) => {
      this.refused(error);
      if (error.code === "not_subscribed") this.note.text = "Your add-on is not paid with a card.";
    });
  }

  goToPlans() {
    this.goTo("openrouter-subscribe", this.plansUrl || "plans");
  }

  #addOn(card) {
    const { status, paid_through: until, next_charge_at: next } = card.add_on;
    const isLeft = status === "cancelling" && !isOver(card.add_on);
    const due = {
      active: next && html`${price(card.add_on, this.priceInCredits)} a month; the next payment is due on <time datetime=${next}>${date(next)}</time>.`,
      cancelling: isLeft && html`It stays until <time datetime=${until}>${date(until)}</time>, and nothing more is charged.`,
      past_due: until && html`Paid until <time datetime=${until}>${date(until)}</time>.`,
      suspended: html`It is switched off, because a payment failed or was disputed.`,
      ended: html`It is over.`,
    }[status] || html`It is over.`;
    const stands = status === "active" || status === "past_due";
    return html`<section data-add-on=${status}>
      <h3>The add-on</h3>
      <p><strong>${ADD_ON_STATUS[status]}.</strong> ${due}</p>
      <div class="row">
        ${isLeft ? this.button("resume", "Keep the add-on", () => this.pay("resume")) : nothing}
        ${stands && !this.priceInCredits ? this.button("card", "Replace the card", () => this.#replaceCard(), { busy: "Opening the payment page…" }) : nothing}
        ${stands ? this.button("cancel", "Cancel the add-on", () => this.#ask("cancel"), { kind: "danger", busy: "Cancelling…" }) : nothing}
      </div>
    </section>`;
  }

  #confirmations(card) {
    const until = card.add_on.paid_through;
    return html`
      ${this.#confirmation("disconnect", "Disconnect your key?", "Disconnect", () => this.#disconnect(), html`
        <p>Greta deletes your key. From then on, AI calls use Greta’s own AI and your credits, until you connect a key again.</p>
        ${card.key ? html`<p>The key itself keeps working at OpenRouter until you ${revoke(card.key)}.</p>` : nothing}`)}
      ${this.#confirmation("cancel", "Cancel the add-on?", "Cancel the add-on", () => this.#cancel(), html`
        <p>${
          card.add_on.status === "active" && until
            ? html`It stays until <strong>${date(until)}</strong>, and nothing more is charged. After that, your key is no longer used.`
            : "Its payment is due, so it ends at once, and your key is no longer used."
        }</p>`)}`;
  }

  #confirmation(name, title, action, run, text) {
    const close = (event) => event.target.closest("dialog").close();
    return html`<dialog id="ask-${name}" aria-labelledby="ask-${name}-title" aria-describedby="ask-${name}-text">
      <form method="dialog" @submit=${() => run()}>
        <h3 id="ask-${name}-title">${title}</h3>
        <div id="ask-${name}-text" class="stack">${text}</div>
        <div class="row">
          <button type="submit" class="danger" data-action="confirm-${name}">${action}</button>
          <button type="button" data-action="keep" autofocus @click=${close}>Keep it</button>
        </div>
      </form>
    </dialog>`;
  }

  #ask(name) {
    this.note = null;
    this.renderRoot.querySelector(`#ask-${name}`).showModal();
  }

  // Announces a success and moves the focus to it.
  #say(text) {
    this.note = { kind: "success", text };
    this.focusOn(".notes .note");
  }
}

const BADGE = { connected: "good", available: "good", attention: "warn", not_enabled: "warn" };

// The text of each cause, and the one thing to do about it.
const CAUSE = {
  past_due: {
    text: ({ key, next_call: next }) => {
      const failed = "The monthly payment for the OpenRouter add-on failed";
      if (!key) return `${failed}.`;
      return next.reason === "add_on_inactive"
        ? `${failed}, and your key is not used until it is paid.`
        : `${failed}. Pay now to keep your key in use.`;
    },
    action: (element) => element.button("pay", "Pay now", () => element.pay("pay"), { busy: "Opening the payment page…" }),
  },
  lapsed: {
    text: () => "The OpenRouter add-on is not active, so your key is not used.",
    action: (element) => element.button("subscribe", "Subscribe", () => element.goToPlans()),
  },
  rejected: {
    text: ({ always_use_key: always }) =>
      always
        ? "OpenRouter no longer accepts your key, and “Always use this key” is on: AI calls fail until you replace the key."
        : "OpenRouter no longer accepts your key. It may have expired or been deleted.",
    action: (element) => element.button("renew", "Replace the key", () => element.openKeyForm()),
  },
  minimum: {
    text: () => "Your credit balance is under the minimum that calls through your key need.",
    action: (element) => element.buyCredits(),
  },
  insufficient: {
    text: () => "Your credits do not cover an AI call.",
    action: (element) => element.buyCredits(),
  },
};

const newKey = () => html`<a href=${KEYS_URL} target="_blank" rel="noopener noreferrer">Create a key at OpenRouter</a>`;

// The next step after an error, other than trying again.
const KEY_LINK = {
  key_rejected: newKey,
  management_key: newKey,
  add_on_required: (element) => element.button("plans", "Plans & Pricing", () => element.goToPlans(), { kind: "link" }),
  sign_in: (element) => element.signIn(),
};

customElements.define("openrouter-integration", OpenRouterIntegration);
