// <openrouter-plans>: Plans & Pricing, where the OpenRouter add-on is bought.

import { html, nothing } from "./lit.js";
import { GretaElement } from "./element.js";
import { isOver, price } from "./facts.js";
import { credits, date } from "./words.js";

export class OpenRouterPlans extends GretaElement {
  static properties = {
    // The outcome of the payment page: "cancelled".
    checkout: {},
    // The address of the page where the key is connected.
    settingsUrl: { attribute: "settings-url" },
    // The address of the page where credits are bought.
    creditsUrl: { attribute: "credits-url" },
    // The monthly price in credits, if the add-on is paid for in credits.
    priceInCredits: { attribute: "price-in-credits" },
  };

  load() {
    return this.client.integration();
  }

  willUpdate(changed) {
    if (changed.has("checkout") && this.checkout === "cancelled") {
      this.note = { kind: "success", text: "You left the payment page." };
    }
  }

  render() {
    const card = this.data;
    if (!card) return this.placeholder("Plans");
    return html`<section class="card stack" aria-labelledby="title" aria-busy=${Boolean(this.pending)}>
      <h2 id="title" tabindex="-1">Power your AI with OpenRouter – $5 Add-on</h2>
      <p><span class="price">${price(card.add_on, this.priceInCredits)}</span> <span class="muted">a month</span></p>
      <ul>
        <li>Every AI call through your own OpenRouter API key, with any model that OpenRouter offers.</li>
        <li>Model usage is billed by OpenRouter, and Greta credits are not used for it.</li>
        <li>A minimum balance of ${credits(card.credits.minimum)} is needed for calls.</li>
        <li>Cancel at any time: the add-on stays until the end of the month that is paid.</li>
      </ul>
      ${this.mayEdit ? nothing : html`<p id="members" class="note warn">You are a member of this account: only an owner can buy the add-on.</p>`}
      ${this.notes()}
      ${this.#offer(card)}
    </section>`;
  }

  #offer({ plan, add_on: addOn }) {
    const { status, paid_through: until } = addOn;
    const settings = new URL(this.settingsUrl || "settings/integrations", this.base).href;
    const back = html`<a class="button" href=${settings}>Settings → Integrations</a>`;
    if (plan === "enterprise") return html`<p>Your plan includes OpenRouter: connect your key for free.</p><div class="row">${back}</div>`;
    if (status === "active") return html`<p>The add-on is active.</p><div class="row">${back}</div>`;
    const offer = { text: "", label: "Select this add-on" };
    if (this.priceInCredits) {
      const month = credits(this.priceInCredits);
      Object.assign(offer, { text: `${month} are charged now, and again each month.`, label: `Pay ${month}` });
    }
    if (status === "past_due") Object.assign(offer, { text: "The monthly payment is due.", label: "Pay now" });
    if (status === "cancelling" && !isOver(addOn)) {
      Object.assign(offer, { text: `The add-on is cancelled. It stays until ${date(until)}.`, label: "Keep the add-on" });
    }
    const select = this.button("select", offer.label, () => this.#select(), { kind: "primary" });
    return html`${offer.text ? html`<p>${offer.text}</p>` : nothing}<div class="row">${select}${back}</div>`;
  }

  // Goes to the payment page, unless there is nothing to pay.
  #select() {
    this.act("select", async () => {
      const { checkout_url: url, integration } = await this.client.subscribe();
      if (url) return this.leaveFor(url);
      this.data = integration;
      this.note = { kind: "success", text: "The add-on is active." };
    });
  }

  refused(error) {
    super.refused(error);
    if (error.code === "insufficient_credits") this.note.next = () => this.buyCredits({ kind: "link" });
  }
}

customElements.define("openrouter-plans", OpenRouterPlans);
