/* What is looked at as files: SVG and PNG of the picture, CSV, JSON and Neuronpedia's JSON of its edges. */

import { groups, pinned } from "./pins.js";

const NUMBERS = ["cohens_d", "mean_delta", "effect_sd", "effect_sd_low", "effect_sd_high", "consistency", "n_cells", "n_nonzero", "n_pos", "n_neg",
  "again_cohens_d", "again_mean_delta"];
const POWERS = ["p_value", "q_value", "q_specific", "again_q_value"];

export function save(name, type, content) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function statistics(circuit, e) {
  const found = {};
  for (const name of NUMBERS) if (circuit.has(`e.${name}`)) found[name] = circuit.of(`e.${name}`, e);
  for (const name of POWERS) if (circuit.has(`e.${name}`)) found[name] = 10 ** circuit.of(`e.${name}`, e);
  for (const name of Object.keys(found)) if (!Number.isFinite(found[name])) delete found[name];
  return found;
}
function ends(circuit, e) {
  const [a, b] = [circuit.source[e], circuit.target[e]];
  return { source_layer: circuit.layer[a], source_feature: circuit.feature[a], target_layer: circuit.layer[b], target_feature: circuit.feature[b] };
}
const usedBy = (circuit, edges) => [...new Set([...edges].flatMap((e) => [circuit.source[e], circuit.target[e]]))].sort((a, b) => a - b);

/* A text that a spreadsheet would run as a formula gets an apostrophe. */
function cell(value) {
  if (typeof value === "number") return String(value);
  const text = (/^[=+\-@\t\r]/.test(value) ? "'" : "") + value.replaceAll("\r", " ");
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function csv(circuit, edges) {
  const rows = [...edges].map((e) => ({
    ...ends(circuit, e), source_name: circuit.name(circuit.source[e]), target_name: circuit.name(circuit.target[e]),
    sign: circuit.sign(e), grade: circuit.grade(e), other_cells: circuit.again(e), ...statistics(circuit, e),
  }));
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  return [columns.join(","), ...rows.map((row) => columns.map((name) => name in row ? cell(row[name]) : "").join(","))].join("\n") + "\n";
}

export function json(circuit, edges, state) {
  const nodes = usedBy(circuit, edges).map((i) => ({
    layer: circuit.layer[i], feature: circuit.feature[i], label: circuit.label(i), genes: circuit.genes(i), is_source: circuit.isSource(i), pinned: pinned(circuit, state).includes(i),
  }));
  const held = [...edges].map((e) => ({ ...ends(circuit, e), sign: circuit.sign(e), grade: circuit.grade(e), other_cells: circuit.again(e), ...statistics(circuit, e) }));
  const { name, model, run_id: runId, n_edges: nEdges } = circuit.facts;
  return JSON.stringify({ run: name, model, run_id: runId, n_edges: nEdges, view: state.link({}, "explore"), nodes, edges: held }, null, 1);
}

/* As `scircuit export --format neuronpedia`: a pseudo-prompt of two tokens, every latent at the second. */
export function neuronpedia(circuit, edges, state) {
  const { name, model, run_id: runId, n_edges: nEdges, version } = circuit.facts;
  const slug = name.replace(/[^A-Za-z0-9_-]/g, "-") || "circuit";
  const id = (i) => `${circuit.layer[i]}_${circuit.feature[i]}_1`;
  const cantor = (i) => { const s = circuit.layer[i] + circuit.feature[i]; return s * (s + 1) / 2 + circuit.feature[i]; };
  const prompt = ["all", " cells"];
  const used = new Set(usedBy(circuit, edges));
  return JSON.stringify({
    metadata: {
      slug, scan: model, prompt_tokens: prompt, prompt: prompt.join(""), schema_version: 1, run_id: runId,
      info: {
        description: `${model}: ${edges.length} of ${nEdges} causal edges over cells, those of a view; the prompt stands for the cells. Link weight = minus the mean change of the target when the source is ablated.`,
        generator: { name: "scircuit", version },
      },
    },
    qParams: {
      pinnedIds: pinned(circuit, state).filter((i) => used.has(i)).map(id),
      supernodes: groups(circuit, state).map(([group, own]) => [group, ...own.filter((i) => used.has(i)).map(id)]), linkType: "both", clickedId: "", sg_pos: "",
    },
    nodes: [...used].map((i) => ({
      node_id: id(i), feature: cantor(i), layer: String(circuit.layer[i]), ctx_idx: 1, feature_type: "cross layer transcoder",
      jsNodeId: `${circuit.layer[i]}_${circuit.feature[i]}-0`, clerp: circuit.name(i), genes: circuit.genes(i).join(", "), is_source: circuit.isSource(i),
    })),
    links: [...edges].map((e) => ({ source: id(circuit.source[e]), target: id(circuit.target[e]), weight: -circuit.of("e.mean_delta", e), ...statistics(circuit, e) })),
  });
}

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;").replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, " ");

/* The picture as it stands, in the colours of the light page, for print. */
export function svg(view) {
  const { circuit, place } = view;
  const parts = [];
  for (const e of [...view.edges].reverse()) {
    const p = view.curve(e).map((value) => value.toFixed(1));
    const width = (0.7 + 0.7 * Math.min(4, Math.floor(5 * Math.abs(circuit.d[e]) / view.most))).toFixed(1);
    parts.push(`<path d="M${p[0]} ${p[1]}C${p.slice(2).join(" ")}" fill="none" stroke="${circuit.d[e] < 0 ? "#0072B2" : "#D55E00"}" stroke-opacity=".6" stroke-width="${width}"${circuit.d[e] < 0 ? "" : ' stroke-dasharray="6 3"'}/>`);
  }
  for (const [i, point] of place.points) {
    const { x, y } = view.at(i);
    const r = view.radius(point).toFixed(1);
    parts.push(`<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="${r}" fill="${circuit.isSource(i) ? "#1f2328" : "#fff"}" stroke="#1f2328"><title>${escaped(`${circuit.place(i)} ${circuit.name(i)}`)}</title></circle>`);
  }
  for (const { i, x, y } of named(view)) parts.push(`<text x="${(x + 9).toFixed(1)}" y="${(y + 4).toFixed(1)}">${escaped(circuit.name(i))}</text>`);
  for (const { layer, x } of place.axis) parts.push(`<text x="${(x * view.zoom.k + view.zoom.x).toFixed(1)}" y="13" fill="#57606a">layer ${layer}</text>`);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${place.width} ${place.height}" font-family="Helvetica, Arial, sans-serif" font-size="11.5" fill="#1f2328"><rect width="100%" height="100%" fill="#fff"/>${parts.join("\n")}</svg>\n`;
}

function named(view) {
  const taken = [];
  for (const [i, point] of [...view.place.points].sort((a, b) => b[1].strength - a[1].strength).slice(0, 200)) {
    const at = view.at(i);
    if (taken.length < 60 && !taken.some((other) => Math.abs(other.y - at.y) < 13 && Math.abs(other.x - at.x) < 120)) taken.push({ i, point, ...at });
  }
  return taken;
}

/* Both canvases on the colour of the page. */
export function png(view, done) {
  const { under, over } = view;
  const whole = document.createElement("canvas");
  [whole.width, whole.height] = [under.width, under.height];
  const pen = whole.getContext("2d");
  pen.fillStyle = view.colours.page;
  pen.fillRect(0, 0, whole.width, whole.height);
  pen.drawImage(under, 0, 0);
  pen.drawImage(over, 0, 0);
  whole.toBlob(done);
}
