/* One edge: cell by cell beside decoys, in other cells, in groups of cells, along paths, at other doses. */

import { chance, fixed, hint, make, panel, percent, short, table } from "./dom.js";
import { bars, intervals, responses } from "./charts.js";
import { edgeLink, gradeMark, latentLink, signMark } from "./ranked.js";

const STEPS = 127;

export function edgeScreen(host, circuit, state) {
  const e = circuit.edgeAt(state.get("edge"));
  if (e === null) { host.replaceChildren(...start(circuit, state)); return; }
  const [a, b] = [circuit.source[e], circuit.target[e]];
  host.replaceChildren(
    make("h2", {}, circuit.name(a), make("span", { class: `arrow ${circuit.sign(e)}` }, circuit.d[e] < 0 ? " → " : " ⊣ "), circuit.name(b)),
    make("p", { class: "kind" }, `${circuit.facts.name} · ${circuit.id(a)} to ${circuit.id(b)} · `, signMark(circuit, e), " · ", gradeMark(circuit, e), ` · ${circuit.again(e)}`),
    make("p", {}, sentence(circuit, e)),
    make("div", { class: "panels" },
      panel("Cell by cell, beside decoys", ...cellByCell(circuit, e)), panel("In other cells", ...otherCells(circuit, e)), panel("Groups of cells", ...inGroups(circuit, e)),
      panel("Paths", ...paths(circuit, e)), panel("At other doses", ...doses(circuit, e)), panel("The two ends", ...bothEnds(circuit, state, a, b)), panel("Every number", numbers(circuit, e))));
}

function start(circuit, state) {
  if (!circuit.nEdges) return [make("h2", {}, "An edge"), hint("This run has no edges.")];
  const rows = [...Array(Math.min(12, circuit.nEdges)).keys()].map((e) => [edgeLink(circuit, state, e), latentLink(circuit, state, circuit.source[e]), latentLink(circuit, state, circuit.target[e]), signMark(circuit, e), fixed(circuit.d[e]), gradeMark(circuit, e)]);
  return [make("h2", {}, "Choose an edge"), make("p", {}, "Open one in Explore, or one of the strongest:"), table([{ title: "edge" }, { title: "source" }, { title: "target" }, { title: "sign" }, { title: "d", number: true }, { title: "grade" }], rows)];
}

function sentence(circuit, e) {
  const falls = circuit.d[e] < 0;
  const sd = circuit.of("e.effect_sd", e);
  const size = Number.isFinite(sd) ? `, ${fixed(Math.abs(sd))} of its clean standard deviation` : "";
  return `When the source is silenced, the target ${falls ? "falls" : "rises"} by ${short(Math.abs(circuit.of("e.mean_delta", e)))} in the mean over ${circuit.of("e.n_cells", e)} cells${size}: the source ${falls ? "supports" : "suppresses"} it. It changes in ${circuit.of("e.n_nonzero", e)} of them, ${percent(circuit.of("e.consistency", e))} the same way. Size and interval are those of the cells in which the edge was chosen, and for that too large and too narrow.`;
}

function cellByCell(circuit, e) {
  const largest = circuit.of("e.largest", e);
  const cells = circuit.rows("cells", e).map((row) => circuit.columns["cells.step"][row] / STEPS * largest);
  const decoys = circuit.rows("decoys", e).map((row) => circuit.of("decoys.delta", row));
  const typical = circuit.of("e.decoy_typical", e);
  const mean = circuit.of("e.mean_delta", e);
  const said = [];
  if (Number.isFinite(typical)) said.push(`Grey: where ${circuit.of("e.n_decoys", e)} decoys that push as hard typically move this target (once and twice their root mean square, ${short(typical)}); the edge moves it ${fixed(Math.abs(mean) / typical, 1)} times as far.`);
  else said.push("No decoys were traced beside this edge, so there is nothing to hold its size against.");
  const draws = circuit.of("e.n_draws", e);
  if (draws) said.push(`Of the ${draws} decoys in place of this source, ${decoys.length} ${decoys.length === 1 ? "is" : "are"} themselves reproducible edges to this target (diamonds).`);
  if (Number.isFinite(circuit.of("e.q_specific", e))) said.push(`Target-decoy q ${chance(circuit.of("e.q_specific", e))}.`);
  if (!cells.length) said.push(circuit.facts.responses ?? "This run keeps no responses of single cells (trace/cell_effects.parquet).");
  const chart = responses({ cells, silent: cells.length ? Math.max(0, circuit.of("e.n_cells", e) - cells.length) : 0, decoys, typical, mean, low: circuit.of("e.ci_low", e), high: circuit.of("e.ci_high", e), sign: circuit.sign(e) });
  return [chart, hint(said.join(" "))];
}

function otherCells(circuit, e) {
  if (!circuit.has("e.again")) return [hint("No edge of this run was measured in other cells (confirmation.n_cells = 0).")];
  if (circuit.of("e.again", e) === 0) return [hint("This edge was not measured in other cells.")];
  const [row, other] = ["e.", "e.again_"].map((part) => ({ mean: circuit.of(`${part}mean_delta`, e), low: circuit.of(`${part}ci_low`, e), high: circuit.of(`${part}ci_high`, e) }));
  return [intervals([{ name: "discovery", ...row }, { name: "other cells", ...other }], "mean change of the target, with 95% interval", circuit.sign(e)),
    hint(`d ${fixed(circuit.d[e])} where it was found, ${fixed(circuit.of("e.again_cohens_d", e))} in cells that had no part in that (q ${chance(circuit.of("e.again_q_value", e))}): ${circuit.again(e)}.`)];
}

function inGroups(circuit, e) {
  if (!circuit.has("groups.at")) return [hint("The trace was not asked for groups of cells (trace.groups).")];
  const rows = circuit.rows("groups", e);
  if (!rows.length) return [hint("No group of cells holds this edge.")];
  return [intervals(rows.map((row) => ({ name: circuit.word("groups.name", row).slice(0, 20), mean: circuit.of("groups.mean_delta", row), low: NaN, high: NaN })), "mean change of the target", circuit.sign(e)),
    table([{ title: "group" }, { title: "cells", number: true }, { title: "d", number: true }, { title: "mean change", number: true }],
      rows.map((row) => [circuit.word("groups.name", row), circuit.of("groups.n_cells", row), fixed(circuit.of("groups.cohens_d", row)), short(circuit.of("groups.mean_delta", row))]))];
}

function paths(circuit, e) {
  const [local, context] = ["local_share", "context_share"].map((name) => circuit.of(`e.${name}`, e));
  const direct = `Straight down the residual stream, the weights alone would give ${short(circuit.of("e.weight_effect", e))} per unit of the source (encoder of the target · decoder of the source).`;
  if (!Number.isFinite(local)) return [hint(`${direct} Shares by path were not measured of this edge (\`scircuit paths\`).`)];
  return [bars([{ name: "same positions", value: local }, { name: "through context", value: context }], "share of the mean change"), hint(direct)];
}

function doses(circuit, e) {
  const rows = circuit.rows("doses", e);
  if (!rows.length) return [hint("Not probed: `scircuit probe` does anything to the source (steer, scale, activate).")];
  return [table([{ title: "what was done and read" }, { title: "dose", number: true }, { title: "cells", number: true }, { title: "mean change", number: true }],
    rows.map((row) => [circuit.word("doses.name", row), short(circuit.of("doses.value", row)), circuit.of("doses.n_cells", row), short(circuit.of("doses.mean_delta", row))]))];
}

function bothEnds(circuit, state, a, b) {
  const shared = circuit.genes(a).filter((gene) => circuit.genes(b).includes(gene));
  const end = (title, i) => [make("p", {}, make("b", {}, `${title}: `), latentLink(circuit, state, i)), make("p", { class: "genes" }, circuit.genes(i).join(", ") || "no gene fired often enough")];
  return [...end("Source", a), ...end("Target", b), make("p", {}, make("b", {}, "Top genes of both: "), shared.join(", ") || "none")];
}

function numbers(circuit, e) {
  const told = [
    ["d", fixed(circuit.d[e], 3)], ["mean change, 95% interval", `${short(circuit.of("e.mean_delta", e))} (${short(circuit.of("e.ci_low", e))} to ${short(circuit.of("e.ci_high", e))})`],
    ["effect, clean SD of the target", `${fixed(circuit.of("e.effect_sd", e))} (${fixed(circuit.of("e.effect_sd_low", e))} to ${fixed(circuit.of("e.effect_sd_high", e))})`],
    ["target without the edit, mean and SD", `${short(circuit.of("e.clean_mean", e))}, ${short(circuit.of("e.clean_sd", e))}`], ["cells: rises, falls, changes, all", ["n_pos", "n_neg", "n_nonzero", "n_cells"].map((name) => circuit.of(`e.${name}`, e)).join(", ")],
    ["skewness of the responses", fixed(circuit.of("e.skewness", e))], ["p", chance(circuit.of("e.p_value", e))], ["q", chance(circuit.of("e.q_value", e))],
    ["score against decoys, q", `${short(circuit.of("e.specificity", e))}, ${chance(circuit.of("e.q_specific", e))}`],
  ];
  return table([{ title: "number" }, { title: "value", number: true }], told);
}
