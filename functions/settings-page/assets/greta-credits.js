// <greta-credits>: the balance, the ledger, and buying credits.

import { html, nothing, svg } from "./lit.js";
import { GretaElement } from "./element.js";
import { ENTRY_KIND, dateTime, day, signed } from "./words.js";

const PAGE = 20;
const DAYS = 30;

export class GretaCredits extends GretaElement {
  static properties = {
    // The purchase that the user returns from: the id of its ledger entry.
    order: {},
    problem: { state: true },
  };

  // The cursors of all pages up to the shown one; the newest page's is null.
  #cursors = [null];
  // Whether to focus the field once it is rendered.
  #focusWanted = false;

  async load() {
    const { client } = this;
    // A new purchase appears on the newest page.
    if (this.waiting) this.#cursors = [null];
    const [integration, balance, { days }, ledger] = await Promise.all([
      client.integration(),
      client.credits(),
      client.daily(DAYS),
      client.ledger(PAGE, this.#cursors.at(-1)),
    ]);
    return { can_edit: integration.can_edit, plan: integration.plan, balance, days, ledger };
  }

  willUpdate(changed) {
    if (changed.has("order") && this.order) this.waitFor((data) => this.#bought(data));
  }

  #bought({ ledger }) {
    const entry = ledger.entries.find(({ id }) => id === this.order);
    return entry && `Payment received: ${entry.amount} credits are yours.`;
  }

  render() {
    if (!this.data) return this.placeholder("Credits");
    const { balance, plan } = this.data;
    return html`<section class="card stack" aria-labelledby="title" aria-busy=${Boolean(this.pending)}>
      <h2 id="title" tabindex="-1">Credits</h2>
      ${this.mayEdit ? nothing : html`<p id="members" class="note warn">You are a member of this account: only an owner can buy credits.</p>`}
      ${this.wait()}
      ${this.notes()}
      <dl class="tiles">
        <div><dt>Available</dt><dd data-fact="available">${balance.available}</dd></div>
        <div><dt>Balance</dt><dd data-fact="balance">${balance.balance}</dd></div>
        <div><dt>Held for calls in progress</dt><dd data-fact="held">${balance.held}</dd></div>
        ${plan === "standard" ? html`<div><dt>Minimum for your key</dt><dd data-fact="minimum">${balance.minimum}</dd></div>` : nothing}
        ${balance.owed === "0" ? nothing : html`<div><dt>Owed</dt><dd data-fact="owed">${balance.owed}</dd></div>`}
      </dl>
      ${this.#buy()}
      ${this.#chart()}
      ${this.#ledger()}
    </section>`;
  }

  #buy() {
    const { problem } = this;
    const busy = this.pending === "buy";
    const off = !this.mayEdit || Boolean(this.pending);
    return html`<section>
      <h3>Buy credits</h3>
      <form class="stack" @submit=${this.#checkout} novalidate>
        <div>
          <label for="usd">Amount in US dollars</label>
          <input id="usd" inputmode="decimal" autocomplete="off" value="25" aria-describedby="usd-help${problem ? " usd-problem" : ""}${this.mayEdit ? "" : " members"}" aria-invalid=${problem ? "true" : "false"} ?readonly=${!this.mayEdit} />
        </div>
        <p id="usd-help" class="muted small">From 5 to 1000 dollars, paid with your card.</p>
        <div aria-live="assertive">${problem ? html`<p id="usd-problem" class="note error">${problem}</p>` : nothing}</div>
        <div class="row"><button type="submit" data-action="buy" aria-disabled=${off ? "true" : nothing} aria-describedby=${this.mayEdit ? nothing : "members"}>${busy ? "Opening the payment page…" : "Buy credits"}</button></div>
      </form>
    </section>`;
  }

  #checkout = (event) => {
    event.preventDefault();
    if (!this.mayEdit) return;
    const field = this.renderRoot.querySelector("#usd");
    const usd = field.value.trim().replace(",", ".");
    this.problem = null;
    if (!/^\d{1,4}(\.\d{1,2})?$/.test(usd) || Number(usd) < 5 || Number(usd) > 1000) {
      this.problem = "Enter an amount from 5 to 1000 dollars, for example 25.";
      field.focus();
      return;
    }
    this.act("buy", async () => this.leaveFor((await this.client.buyCredits(usd)).checkout_url));
  };

  #chart() {
    const { days } = this.data;
    const spent = days.map(({ spent }) => Number(spent));
    const most = Math.max(...spent);
    const calls = days.reduce((sum, { calls }) => sum + calls, 0);
    const busiest = days[spent.indexOf(most)];
    const summary = most
      ? `Credits spent per day in the last ${DAYS} days: ${calls} AI calls; the most on ${day(busiest.date)}, ${busiest.spent} credits.`
      : `No credits were spent in the last ${DAYS} days.`;
    const bar = (value, at) => svg`<rect x=${at * 10 + 1} y=${100 - (value / most) * 100} width="8" height=${(value / most) * 100}></rect>`;
    return html`<section>
      <h3>Credits per day</h3>
      <figure class="stack">
        ${most === 0 ? nothing : html`<svg class="chart" role="img" aria-label=${summary} viewBox="0 0 ${days.length * 10} 101" preserveAspectRatio="none">
          <line x1="0" x2=${days.length * 10} y1="100.5" y2="100.5"></line>
          ${spent.map(bar)}
        </svg>`}
        <figcaption class="muted small">${summary}</figcaption>
      </figure>
      <details>
        <summary>As a table</summary>
        <div class="scroll" tabindex="0" role="region" aria-label="Credits per day">
          <table>
            <caption>Credits per day (UTC)</caption>
            <thead><tr><th scope="col">Day</th><th scope="col" class="number">Credits</th><th scope="col" class="number">AI calls</th></tr></thead>
            <tbody>${days.toReversed().map(({ date, spent, calls }) => html`<tr><td>${day(date)}</td><td class="number">${spent}</td><td class="number">${calls}</td></tr>`)}</tbody>
          </table>
        </div>
      </details>
    </section>`;
  }

  #ledger() {
    const { entries, next_cursor: next } = this.data.ledger;
    return html`<section>
      <h3>Ledger</h3>
      ${
        entries.length === 0
          ? html`<p class="muted">No credits have moved yet.</p>`
          : html`<div class="scroll" id="ledger" tabindex="0" role="region" aria-label="Ledger">
              <table class="wide">
                <caption>Every movement of credits, the newest first</caption>
                <thead><tr><th scope="col">When</th><th scope="col">What</th><th scope="col" class="number">Credits</th><th scope="col" class="number">Balance</th><th scope="col">Note</th></tr></thead>
                <tbody>${entries.map((entry) => html`<tr data-entry=${entry.id}>
                  <td><time datetime=${entry.at}>${dateTime(entry.at)}</time></td>
                  <td>${ENTRY_KIND[entry.kind] ?? entry.kind}</td>
                  <td class="number">${signed(entry.amount)}</td>
                  <td class="number">${entry.balance_after}</td>
                  <td>${entry.note}</td>
                </tr>`)}</tbody>
              </table>
            </div>`
      }
      ${
        this.waiting !== "waiting" && (next || this.#cursors.length > 1)
          ? html`<div class="row">
              ${this.#cursors.length > 1 ? this.button("newer", "Newer", () => this.#turnPage(() => this.#cursors.pop()), { editing: false }) : nothing}
              ${next ? this.button("older", "Older", () => this.#turnPage(() => this.#cursors.push(next)), { editing: false }) : nothing}
              <span class="muted small" role="status">Page ${this.#cursors.length}</span>
            </div>`
          : nothing
      }
    </section>`;
  }

  // Shows another page of the ledger, or the same one if that fails.
  #turnPage(move) {
    const before = [...this.#cursors];
    this.act("page", async () => {
      move();
      try {
        const ledger = await this.client.ledger(PAGE, this.#cursors.at(-1));
        this.data = { ...this.data, ledger };
        this.focusOn("#ledger");
      } catch (error) {
        this.#cursors = before;
        throw error;
      }
    });
  }

  // The target of "Buy credits"; focused as soon as it is rendered.
  focus() {
    this.#focusWanted = true;
    this.requestUpdate();
  }

  updated(changed) {
    super.updated(changed);
    const field = this.#focusWanted && this.renderRoot.querySelector("#usd");
    if (!field) return;
    this.#focusWanted = false;
    this.scrollIntoView();
    field.focus();
  }
}

customElements.define("greta-credits", GretaCredits);
