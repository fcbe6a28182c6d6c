export { LitElement, css, html, nothing, svg } from "lit";
