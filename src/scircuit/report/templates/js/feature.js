/* One latent: what it stands for, where it fires, what drives it and what it drives. */

import { button, chance, count, fixed, hint, make, panel, percent, short, table } from "./dom.js";
import { bars, quantiles } from "./charts.js";
import { pinned, togglePin } from "./pins.js";
import { edgeLink, gradeMark, latentLink, numberColumns, signMark } from "./ranked.js";

const LISTED = 25;
const DRAWN = 10;

export function featureScreen(host, circuit, state) {
  const i = circuit.at.get(state.get("node"));
  if (i === undefined) { host.replaceChildren(...start(circuit, state)); return; }
  const pins = pinned(circuit, state).includes(i);
  const layer = String(circuit.layer[i]);
  host.replaceChildren(
    make("h2", {}, circuit.name(i)),
    make("p", { class: "kind" }, `${circuit.facts.name} · layer ${layer}, latent ${circuit.feature[i]} (${circuit.id(i)})${circuit.isSource(i) ? " · silenced as a source" : " · never silenced, so it has edges in alone"}`),
    make("p", { class: "line" }, button(pins ? "★ Pinned" : "☆ Pin", () => togglePin(circuit, state, i), { "aria-pressed": String(pins) }),
      make("a", { class: "button", href: state.link({ q: circuit.id(i) }, "explore") }, "Its edges in the picture")),
    make("div", { class: "panels" },
      panel("Top genes", ...genes(circuit, i)),
      panel("Gene sets", ...sets(circuit, i)), panel("When it fires", ...activation(circuit, i)), panel("Cell types and other groups", ...categories(circuit, i)),
      panel("Cells in which it is strongest", ...cells(circuit, i)), panel("Under another seed", stability(circuit, layer))),
    ...edges(circuit, state, i, "out"), ...edges(circuit, state, i, "in"));
}

function start(circuit, state) {
  const order = [...Array(circuit.nNodes).keys()].sort((a, b) => circuit.degree(b) - circuit.degree(a));
  if (!order.length) return [make("h2", {}, "A latent"), hint("This run has no edges, so no latent has any to look at.")];
  const most = (of) => make("ol", { class: "plain" }, order.filter(of).slice(0, 10).map((i) => make("li", {}, latentLink(circuit, state, i), ` ${count(circuit.degree(i))} edges`)));
  return [make("h2", {}, "Choose a latent"), make("p", {}, "Search in Explore, or start from those with most edges (all that the page holds, of every grade):"),
    make("div", { class: "panels" }, panel("Silenced", most((i) => circuit.isSource(i))), panel("Others", most((i) => !circuit.isSource(i))))];
}

function genes(circuit, i) {
  const rows = circuit.rows("genes", i);
  if (!rows.length) return [hint("No gene fired often enough to be told.")];
  const listed = make("p", { class: "genes" }, circuit.genes(i).join(", "));
  const said = hint("By mean activation over the genes at which it fired often enough.");
  if (!circuit.has("genes.activation")) return [listed, said];
  return [bars(rows.slice(0, DRAWN).map((row) => ({ name: circuit.word("genes.name", row), value: circuit.of("genes.activation", row) })), "mean activation at the gene"), listed, said];
}

function sets(circuit, i) {
  const rows = circuit.rows("terms", i);
  const runner = circuit.has("n.runner_up") ? circuit.word("n.runner_up", i) : "";
  const after = runner ? [make("p", {}, make("b", {}, "Runner-up: "), runner)] : [];
  if (!rows.length) return [hint("No gene set is enriched among its top genes.")];
  const shown = rows.map((row) => [circuit.word("terms.name", row), chance(circuit.of("terms.q_value", row)), fixed(circuit.of("terms.fold", row), 1), `${circuit.of("terms.n_overlap", row)} of ${circuit.of("terms.set_size", row)}`]);
  return [table([{ title: "set" }, { title: "q", number: true }, { title: "fold", number: true }, { title: "genes of the set", number: true }], shown), ...after,
    hint("A label is a description of the genes at which a latent fires, not of what it does.")];
}

function activation(circuit, i) {
  const facts = `Fires at ${percent(circuit.of("n.frequency", i), 2)} of gene positions (${count(circuit.of("n.n_firings", i))} firings${circuit.has("n.n_cells") ? ` in ${count(circuit.of("n.n_cells", i))} cells` : ""}), with a mean activation of ${short(circuit.of("n.mean_activation", i))}.`;
  const [q25, q50, q75, q95, max] = ["q25", "q50", "q75", "q95", "max_activation"].map((name) => circuit.of(`n.${name}`, i));
  const whole = [q25, q50, q75, q95, max].every(Number.isFinite);
  return [make("p", {}, facts), whole ? quantiles({ q25, q50, q75, q95, max }) : hint("The catalogue of this run holds no quantiles of its activation."),
    hint("A run keeps quantiles of an activation, not its histogram, and no embedding of the cells.")];
}

function categories(circuit, i) {
  if (!circuit.has("obs.at")) return [hint("No column of the cells was tested in this run (features.obs).")];
  const rows = circuit.rows("obs", i);
  if (!rows.length) return [hint("Its strongest cells are enriched in no group of cells that was tested.")];
  return [table([{ title: "group" }, { title: "q", number: true }, { title: "fold", number: true }, { title: "of its top cells", number: true }],
    rows.map((row) => [circuit.word("obs.name", row), chance(circuit.of("obs.q_value", row)), fixed(circuit.of("obs.fold", row), 1), `${circuit.of("obs.n_overlap", row)} of ${circuit.of("obs.query_size", row)}`]))];
}

function cells(circuit, i) {
  const rows = circuit.rows("top", i);
  if (!rows.length) return [hint("This run keeps no top cells of it (features/cells.parquet).")];
  return [table([{ title: "cell" }, { title: "activation", number: true, help: "mean over the cell's positions" }], rows.map((row) => [circuit.word("top.cell", row), short(circuit.of("top.activation", row))]))];
}

function stability(circuit, layer) {
  const own = circuit.facts.seed_stability?.[layer];
  if (own === undefined) return hint("Not measured: the dictionaries of this run were trained under one seed (sae.seed_stability).");
  return make("p", {}, `Of its whole layer: the mean cosine of a latent with its nearest under another seed is ${fixed(own)}; by chance it would be ${fixed(circuit.facts.seed_stability_random?.[layer])}. Single latents are not kept.`);
}

function edges(circuit, state, i, end) {
  const mine = [...circuit.edgesOf(i)].filter((e) => (end === "out" ? circuit.source : circuit.target)[e] === i);
  const title = end === "out" ? "What it drives" : "What drives it";
  if (!mine.length) return [make("h3", {}, title), hint(end === "out" && !circuit.isSource(i) ? "It was not silenced, so what it drives is not known." : "No edge.")];
  const columns = numberColumns(circuit);
  const rows = mine.slice(0, LISTED).map((e) => [edgeLink(circuit, state, e), latentLink(circuit, state, end === "out" ? circuit.target[e] : circuit.source[e]), signMark(circuit, e), ...columns.map((column) => column.of(e)), gradeMark(circuit, e)]);
  const titles = [{ title: "edge" }, { title: end === "out" ? "target" : "source" }, { title: "sign" }, ...columns.map((column) => ({ title: column.title, number: true, help: column.help })), { title: "grade" }];
  return [make("h3", {}, title), table(titles, rows, `${rows.length} of ${count(mine.length)} edges ${end}, of every grade, strongest first`)];
}
