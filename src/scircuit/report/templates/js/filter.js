/* Which edges pass what the reader asks, in the order asked. */

import { GRADES } from "./circuit.js";

/* How edges may be ordered: by what, and whether the largest or the smallest come first. */
export const ORDERS = {
  d: { title: "|d|", value: (c) => (e) => Math.abs(c.d[e]), falling: true },
  effect: { title: "effect", value: (c) => (e) => Math.abs(c.of("e.effect_sd", e) ?? 0), falling: true },
  again: { title: "other cells", value: (c) => (e) => Math.abs(c.of("e.again_cohens_d", e) ?? 0), falling: true },
  q: { title: "q", value: (c) => (e) => c.columns["e.q_value"][e], falling: false },
  consistency: { title: "consistency", value: (c) => (e) => c.columns["e.consistency"][e], falling: true },
};

/* The latents that the reader is at: those that match the text, the term, the group asked for; null for all. */
export function chosen(search, state, group) {
  const masks = [search.matches(state.get("q")), state.get("term") ? search.withTerm(state.get("term")) : null, group].filter(Boolean);
  if (!masks.length) return null;
  return masks[0].map((_, i) => masks.every((mask) => mask[i]) ? 1 : 0);
}

export function passing(circuit, state, at) {
  const { columns, source, target, d, layer } = circuit;
  const least = { grade: GRADES.indexOf(state.get("grade") || circuit.facts.shown), d: state.number("d"), effect: state.number("e") };
  const q = state.get("p") === "" ? Infinity : state.number("p") + 1e-4;
  const [sign, from, to] = [state.get("sign"), state.get("from"), state.get("to")];
  const [grades, qs, effects, again] = [columns["e.grade"], columns["e.q_value"], columns["e.effect_sd"], columns["e.again"]];
  const found = new Uint32Array(circuit.nEdges);
  let n = 0;
  for (let e = 0; e < circuit.nEdges; e += 1) {
    if (grades[e] < least.grade || Math.abs(d[e]) < least.d || qs[e] > q) continue;
    if (least.effect > 0 && !(effects && Math.abs(effects[e]) >= least.effect)) continue;
    if (state.get("again") && !(again && again[e] === 2)) continue;
    if (sign && (d[e] < 0) !== (sign === "supporting")) continue;
    if ((from !== "" && layer[source[e]] !== Number(from)) || (to !== "" && layer[target[e]] !== Number(to))) continue;
    if (at && !at[source[e]] && !at[target[e]]) continue;
    found[n] = e;
    n += 1;
  }
  return ordered(circuit, found.slice(0, n), state.get("sort"));
}

/* Edges are numbered by |d|, so that this order costs nothing. */
function ordered(circuit, edges, by) {
  const order = ORDERS[by];
  if (!order || by === "d") return edges;
  const value = order.value(circuit);
  const values = Float64Array.from(edges, (e) => { const v = value(e); return Number.isNaN(v) ? Infinity : order.falling ? -v : v; });
  const places = Uint32Array.from(edges, (_, i) => i).sort((a, b) => values[a] - values[b] || a - b);
  return places.map((place) => edges[place]);
}

/* How many edges there are of each grade that the run told. */
export function counted(circuit) {
  const exact = GRADES.map(() => 0);
  for (const code of circuit.columns["e.grade"]) exact[code] += 1;
  return circuit.facts.grades.map((grade) => [grade, exact.slice(GRADES.indexOf(grade)).reduce((sum, n) => sum + n, 0)]);
}
