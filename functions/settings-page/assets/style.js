// The elements' style. An embedding page sets `--greta-accent` and the font; light and dark follow
// its `color-scheme`.

import { css } from "./lit.js";

export const style = css`
  :host {
    --accent: var(--greta-accent, light-dark(#3b49df, #a5b0ff));
    --on-accent: var(--greta-on-accent, light-dark(#fff, #12163a));
    --surface: light-dark(#fff, #1b1d27);
    --text: light-dark(#1c1e2b, #ecedf5);
    --muted: light-dark(#5a5e72, #a9adc2);
    --line: light-dark(#dcdee8, #343848);
    --field: light-dark(#8a8ea3, #767b92);
    --good: light-dark(#0d6b3f, #6fdca4);
    --good-soft: light-dark(#e5f6ed, #14302a);
    --bad: light-dark(#a3172d, #ff9aa6);
    --bad-soft: light-dark(#fdebee, #3b1b22);
    --warn: light-dark(#7a4a00, #f4c46b);
    --warn-soft: light-dark(#fff3dc, #35290f);
    color-scheme: inherit;
    display: block;
    color: var(--text);
    line-height: 1.5;
  }
  :host([hidden]) { display: none; }
  *, ::before, ::after { box-sizing: border-box; }
  .card {
    background: var(--surface);
    border: 1px solid var(--line);
    border-radius: 0.9rem;
    padding: clamp(1rem, 4vw, 1.75rem);
  }
  h2, h3, p, dl, dd, ul, figure { margin: 0; }
  h2 { font-size: 1.25rem; line-height: 1.3; }
  h3 { font-size: 1rem; }
  .stack { display: grid; gap: 1rem; min-width: 0; }
  .stack > * { min-width: 0; }
  .stack > section { border-top: 1px solid var(--line); padding-top: 1rem; display: grid; gap: 0.75rem; }
  .head { display: flex; flex-wrap: wrap; align-items: center; gap: 0.5rem 0.75rem; }
  .muted { color: var(--muted); }
  .small { font-size: 0.875rem; }
  .badge {
    border-radius: 1rem;
    padding: 0.1rem 0.7rem;
    font-size: 0.8125rem;
    font-weight: 600;
    color: var(--muted);
    border: 1px solid currentColor;
  }
  .badge.good { color: var(--good); }
  .badge.warn { color: var(--warn); }
  .payer { border-left: 0.25rem solid var(--accent); padding-left: 0.75rem; }
  .payer.none { border-color: var(--bad); }
  .row { display: flex; flex-wrap: wrap; gap: 0.6rem; align-items: center; }
  button, .button {
    font: inherit;
    font-weight: 600;
    min-height: 2.75rem;
    padding: 0.5rem 1.1rem;
    border-radius: 0.55rem;
    border: 1px solid var(--field);
    background: transparent;
    color: var(--text);
    cursor: pointer;
    text-decoration: none;
    display: inline-flex;
    align-items: center;
  }
  button.primary, .button.primary { background: var(--accent); border-color: var(--accent); color: var(--on-accent); }
  button.danger { color: var(--bad); border-color: currentColor; }
  button.link {
    min-height: 1.5rem;
    padding: 0 0.1rem;
    border: 0;
    color: inherit;
    text-decoration: underline;
    display: inline;
  }
  button[aria-disabled="true"] { opacity: 0.55; cursor: not-allowed; }
  a { color: var(--accent); }
  :focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: 0.3rem; }
  .note:focus, h2:focus { outline: none; }
  .notes { display: grid; gap: 0.5rem; }
  /* An empty live region takes no space. */
  [aria-live]:empty { position: absolute; }
  .note { padding: 0.7rem 0.9rem; border-radius: 0.55rem; overflow-wrap: anywhere; }
  .note.success { color: var(--good); background: var(--good-soft); }
  .note.error { color: var(--bad); background: var(--bad-soft); }
  .note.warn { color: var(--warn); background: var(--warn-soft); }
  .banners { display: grid; gap: 0.75rem; }
  .banner { display: flex; flex-wrap: wrap; gap: 0.6rem 1rem; align-items: center; justify-content: space-between; }
  .banner p { flex: 1 1 16rem; }
  .banner button, .banner .button { color: inherit; border-color: currentColor; }
  dl.facts { display: grid; grid-template-columns: minmax(7rem, auto) 1fr; gap: 0.35rem 1rem; }
  dl.facts dt { color: var(--muted); }
  dl.facts dd { overflow-wrap: anywhere; }
  .tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.5rem, 1fr)); gap: 0.75rem; }
  .tiles div { border: 1px solid var(--line); border-radius: 0.55rem; padding: 0.6rem 0.8rem; }
  .tiles dt { color: var(--muted); font-size: 0.875rem; }
  .tiles dd { font-size: 1.2rem; font-weight: 600; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
  .switch { display: grid; grid-template-columns: 1fr auto; gap: 0.15rem 1rem; align-items: center; }
  .switch p { grid-column: 1; }
  .switch .name { font-weight: 600; }
  .switch button {
    grid-column: 2;
    grid-row: 1 / span 2;
    width: 3.25rem;
    min-height: 1.9rem;
    height: 1.9rem;
    padding: 0;
    border-radius: 1rem;
    border: 2px solid var(--field);
    position: relative;
  }
  .switch button::after {
    content: "";
    position: absolute;
    left: 0.2rem;
    width: 1.2rem;
    height: 1.2rem;
    border-radius: 50%;
    background: var(--field);
  }
  .switch button[aria-checked="true"] { background: var(--accent); border-color: var(--accent); }
  .switch button[aria-checked="true"]::after { left: 1.6rem; background: var(--on-accent); }
  label { font-weight: 600; display: block; margin-bottom: 0.3rem; }
  input {
    font: inherit;
    width: 100%;
    min-height: 2.75rem;
    padding: 0.5rem 0.75rem;
    border: 1px solid var(--field);
    border-radius: 0.55rem;
    background: var(--surface);
    color: var(--text);
  }
  input::placeholder { color: var(--muted); opacity: 1; }
  input[aria-invalid="true"] { border-color: var(--bad); }
  dialog {
    width: min(30rem, calc(100vw - 2rem));
    border: 1px solid var(--line);
    border-radius: 0.9rem;
    padding: 1.5rem;
    background: var(--surface);
    color: var(--text);
  }
  dialog::backdrop { background: rgb(10 12 20 / 0.55); }
  dialog form { display: grid; gap: 1rem; }
  progress { width: 100%; accent-color: var(--accent); }
  .scroll { overflow-x: auto; }
  table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
  table.wide { min-width: 38rem; }
  caption { text-align: left; font-weight: 600; padding-bottom: 0.4rem; }
  th { color: var(--muted); font-weight: 600; }
  th, td { text-align: left; padding: 0.45rem 0.9rem 0.45rem 0; border-bottom: 1px solid var(--line); }
  th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
  svg.chart { width: 100%; height: 8rem; display: block; }
  svg.chart rect { fill: var(--accent); }
  svg.chart line { stroke: var(--line); }
  .price { font-size: 1.75rem; font-weight: 700; }
  .spinner {
    display: inline-block;
    width: 1em;
    height: 1em;
    margin-right: 0.5em;
    vertical-align: -0.1em;
    border: 0.15em solid var(--line);
    border-top-color: var(--accent);
    border-radius: 50%;
  }
  @media (prefers-reduced-motion: no-preference) {
    .spinner { animation: turn 0.9s linear infinite; }
    .switch button, .switch button::after { transition: all 0.15s; }
  }
  @keyframes turn { to { transform: rotate(1turn); } }
  @media (forced-colors: active) {
    .switch button[aria-checked="true"] { background: Highlight; }
    .switch button::after { background: ButtonText; }
  }
`;
