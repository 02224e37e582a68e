/* Small charts: responses of cells beside decoys, intervals one above the other, quantiles, bars. */

import { draw, fixed, short } from "./dom.js";

const WIDTH = 520;
const LEFT = 132;

/* A scale from numbers to places, with 0 in it. */
function scale(values, left = LEFT, right = WIDTH - 14) {
  const ends = values.filter(Number.isFinite);
  let [low, high] = [Math.min(0, ...ends), Math.max(0, ...ends)];
  if (low === high) high = low + 1;
  const pad = 0.04 * (high - low);
  [low, high] = [low - pad, high + pad];
  const at = (value) => left + (value - low) / (high - low) * (right - left);
  const step = 10 ** Math.floor(Math.log10((high - low) / 3));
  const wide = [1, 2, 5, 10].map((f) => f * step).find((s) => (high - low) / s <= 6);
  const ticks = [];
  for (let t = Math.ceil(low / wide); t * wide <= high; t += 1) ticks.push(t * wide);
  return { at, ticks };
}
function axis({ at, ticks }, bottom, title) {
  return [draw("line", { class: "zero", x1: at(0), x2: at(0), y1: 6, y2: bottom }),
    ...ticks.flatMap((t) => [draw("line", { class: "tick", x1: at(t), x2: at(t), y1: bottom, y2: bottom + 4 }), draw("text", { x: at(t), y: bottom + 16, "text-anchor": "middle" }, short(Number(t.toPrecision(10))))]),
    draw("text", { class: "title", x: (LEFT + WIDTH) / 2, y: bottom + 32, "text-anchor": "middle" }, title)];
}
function frame(height, label, ...children) {
  return draw("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label }, ...children);
}
const left = (text, y) => draw("text", { x: LEFT - 10, y: y + 4, "text-anchor": "end" }, text);

/* Every cell a dot, decoys in the source's place as diamonds, the typical reach of decoys as a band. */
export function responses({ cells, silent, decoys, typical, mean, low, high, sign }) {
  const known = [...cells, ...decoys, mean, low, high, typical ? 2 * typical : 0, typical ? -2 * typical : 0];
  const x = scale(known);
  const band = typical ? [2, 1].map((k) => draw("rect", { class: "band", x: x.at(-k * typical), width: x.at(k * typical) - x.at(-k * typical), y: 10, height: 128 })) : [];
  const dots = cells.map((value, i) => draw("circle", { class: `cell ${sign}`, cx: x.at(value), cy: 40 + 15 * Math.sin(2.4 * i), r: 2.6 }));
  const shapes = decoys.map((value) => draw("path", { class: "decoy", d: `M${x.at(value)} 117l5 5l-5 5l-5 -5z` }));
  const label = `Responses of ${cells.length} cells, mean ${short(mean)}; ${decoys.length} decoys beside them`;
  return frame(178, label, ...band, ...axis(x, 140, "change of the target's activation"), left(`${cells.length} cells`, 40), left(silent ? `${silent} more: 0` : "", 54),
    ...dots, left("mean, 95%", 86), ...interval(x, 86, { mean, low, high }, sign), left("decoys, means", 122), ...shapes);
}

function interval(x, y, { mean, low, high }, look) {
  if (!Number.isFinite(mean)) return [];
  const line = Number.isFinite(low) && Number.isFinite(high) ? [draw("line", { class: `interval ${look}`, x1: x.at(low), x2: x.at(high), y1: y, y2: y })] : [];
  return [...line, draw("circle", { class: `estimate ${look}`, cx: x.at(mean), cy: y, r: 4.2 })];
}

/* Rows of `name, mean, low, high`, one above the other on one scale. */
export function intervals(rows, title, look) {
  const x = scale(rows.flatMap((row) => [row.mean, row.low, row.high]));
  const bottom = 12 + 26 * rows.length;
  const label = rows.map((row) => `${row.name}: ${short(row.mean)}`).join("; ");
  return frame(bottom + 40, label, ...axis(x, bottom, title), ...rows.flatMap((row, r) => [left(row.name, 22 + 26 * r), ...interval(x, 22 + 26 * r, row, row.look ?? look)]));
}

/* Quantiles of an activation as a box with a whisker. */
export function quantiles({ q25, q50, q75, q95, max }) {
  const x = scale([max], LEFT);
  const y = 34;
  const label = `Quartiles ${fixed(q25)}, ${fixed(q50)}, ${fixed(q75)}; 95% below ${fixed(q95)}; largest ${fixed(max)}`;
  return frame(96, label, ...axis(x, 58, "activation, over the positions where it fires"), left("activation", y), draw("line", { class: "interval", x1: x.at(q25), x2: x.at(max), y1: y, y2: y }),
    draw("rect", { class: "box", x: x.at(q25), width: Math.max(1, x.at(q75) - x.at(q25)), y: y - 9, height: 18 }),
    draw("line", { class: "median", x1: x.at(q50), x2: x.at(q50), y1: y - 9, y2: y + 9 }),
    draw("line", { class: "tick", x1: x.at(q95), x2: x.at(q95), y1: y - 6, y2: y + 6 }),
    draw("text", { x: x.at(q95), y: y - 11, "text-anchor": "middle" }, "95%"), draw("circle", { class: "estimate", cx: x.at(max), cy: y, r: 2.6 }));
}

/* Bars of `name, value`. */
export function bars(rows, title) {
  const x = scale(rows.map((row) => row.value));
  const bottom = 8 + 18 * rows.length;
  return frame(bottom + 40, rows.map((row) => `${row.name}: ${short(row.value)}`).join("; "), ...axis(x, bottom, title),
    ...rows.flatMap((row, r) => [left(row.name, 16 + 18 * r), draw("rect", { class: "bar", x: Math.min(x.at(0), x.at(row.value)), width: Math.abs(x.at(row.value) - x.at(0)), y: 10 + 18 * r, height: 12 })]));
}
