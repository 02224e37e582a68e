/* Edges as a table: the strongest first, or in the order asked; every row leads on. */

import { button, chance, count, fixed, make, percent, short, table } from "./dom.js";
import { ORDERS } from "./filter.js";
import { pinned, togglePin } from "./pins.js";

const STEP = 25;

export function latentLink(circuit, state, i) {
  return make("a", { href: state.link({ node: circuit.key(i) }, "feature"), class: "latent" }, make("span", { class: "place" }, circuit.place(i)), ` ${circuit.name(i)}`);
}
export function edgeLink(circuit, state, e) {
  return make("a", { href: state.link({ edge: circuit.edgeKey(e) }, "edge"), "aria-label": `edge ${circuit.place(circuit.source[e])} to ${circuit.place(circuit.target[e])}` }, "open");
}
export function signMark(circuit, e) {
  return make("span", { class: `sign ${circuit.sign(e)}` }, circuit.d[e] < 0 ? "▼ supporting" : "▲ suppressing");
}
export function gradeMark(circuit, e) {
  return make("span", { class: `grade ${circuit.grade(e)}` }, circuit.grade(e));
}

/* Columns of numbers, those that this run has. */
export function numberColumns(circuit) {
  const columns = [
    { title: "d", order: "d", help: "mean change of the target over cells / its standard deviation", of: (e) => fixed(circuit.d[e]) },
    { title: "effect, SD", order: "effect", needs: "e.effect_sd", help: "mean change over the clean standard deviation of the target", of: (e) => fixed(circuit.of("e.effect_sd", e)) },
    { title: "d, other cells", order: "again", needs: "e.again_cohens_d", help: "in cells that had no part in finding the edge; ✓ found again", of: (e) => `${fixed(circuit.of("e.again_cohens_d", e))}${circuit.of("e.again", e) === 2 ? " ✓" : ""}` },
    { title: "change", help: "mean change in units of the target's activation", of: (e) => short(circuit.of("e.mean_delta", e)) },
    { title: "cells", help: "cells with a changed target, of the cells in which the source fires", of: (e) => `${circuit.of("e.n_nonzero", e)} of ${circuit.of("e.n_cells", e)}` },
    { title: "consistency", order: "consistency", help: "share of the changed cells that change in the main direction", of: (e) => percent(circuit.of("e.consistency", e)) },
    { title: "q", order: "q", help: "Benjamini-Hochberg over all tests", of: (e) => chance(circuit.of("e.q_value", e)) },
  ];
  return columns.filter((column) => !column.needs || circuit.has(column.needs));
}

/* The table of the explorer, `shown` rows of it and a button for more. */
export function ranked(host, circuit, state, edges, shown = STEP) {
  const columns = numberColumns(circuit);
  const pins = new Set(pinned(circuit, state));
  const head = (column) => column.order
    ? make("button", { type: "button", class: "sort", title: column.help, onclick: () => state.set({ sort: column.order }) }, column.title, state.get("sort") === column.order ? (ORDERS[column.order].falling ? " ↓" : " ↑") : "")
    : column.title;
  const pin = (i) => button(pins.has(i) ? "★" : "☆", () => togglePin(circuit, state, i), { class: "small", "aria-pressed": String(pins.has(i)), "aria-label": `pin ${circuit.place(i)}`, title: "pin" });
  const rows = [...edges.subarray(0, shown)].map((e) => [
    edgeLink(circuit, state, e), make("span", {}, pin(circuit.source[e]), latentLink(circuit, state, circuit.source[e])),
    make("span", {}, pin(circuit.target[e]), latentLink(circuit, state, circuit.target[e])), signMark(circuit, e), ...columns.map((column) => column.of(e)), gradeMark(circuit, e),
  ]);
  const titles = [{ title: "edge" }, { title: "source" }, { title: "target" }, { title: "sign" }, ...columns.map((column) => ({ title: head(column), number: true, help: column.help })), { title: "grade" }];
  const more = edges.length > shown ? button(`Show ${Math.min(STEP, edges.length - shown)} more of ${count(edges.length - shown)}`, () => {
    ranked(host, circuit, state, edges, shown + STEP);
    host.querySelectorAll("tbody tr")[shown]?.querySelector("a")?.focus();
  }) : null;
  host.replaceChildren(table(titles, rows, `Edges in order: ${Math.min(shown, edges.length)} of ${count(edges.length)}`), ...(more ? [more] : []));
}
