/* Where latents stand: a column per layer, each latent near the mean height of those it is joined to
   (the barycentre heuristic of Sugiyama, Tagawa and Toda, 1981). */

export const MARGIN = { left: 16, top: 30, bottom: 14 };

/* Places of the latents at the ends of `edges`, in a picture of this width: x, y by latent, degree and strength there. */
export function layOut(circuit, edges, width) {
  const { source, target, d, layer } = circuit;
  const degree = new Map();
  const strength = new Map();
  for (const e of edges) for (const i of [source[e], target[e]]) {
    degree.set(i, (degree.get(i) ?? 0) + 1);
    strength.set(i, (strength.get(i) ?? 0) + Math.abs(d[e]));
  }
  const nodes = [...degree.keys()].sort((a, b) => layer[a] - layer[b] || a - b);
  const layers = [...new Set(nodes.map((i) => layer[i]))];
  const columns = layers.map((own) => nodes.filter((i) => layer[i] === own));
  const height = heights(circuit, edges, columns);
  const tallest = Math.max(1, ...columns.map((column) => column.length));
  const tall = Math.min(760, Math.max(280, 17 * tallest));
  const right = Math.min(170, width * 0.24);
  const gap = (width - MARGIN.left - right) / Math.max(layers.length - 1, 1);
  const points = new Map();
  columns.forEach((column, c) => {
    for (const i of column) points.set(i, {
      x: MARGIN.left + c * gap, y: MARGIN.top + height.get(i) * tall, degree: degree.get(i), strength: strength.get(i), last: c === columns.length - 1,
    });
  });
  const axis = layers.map((own, c) => ({ layer: own, x: MARGIN.left + c * gap }));
  return { points, axis, gap, width, height: tall + MARGIN.top + MARGIN.bottom, right, apart: tall / tallest };
}

function heights(circuit, edges, columns) {
  const { source, target, d } = circuit;
  const height = new Map();
  const spread = (column) => column.forEach((i, r) => height.set(i, (r + 0.5) / column.length));
  columns.forEach(spread);
  const sweeps = edges.length > 20000 ? 2 : edges.length > 3000 ? 5 : 12;
  for (let sweep = 0; sweep < sweeps; sweep += 1) {
    const pull = new Map();
    const weight = new Map();
    const add = (i, j, w) => { pull.set(i, (pull.get(i) ?? 0) + w * height.get(j)); weight.set(i, (weight.get(i) ?? 0) + w); };
    for (const e of edges) { const w = Math.abs(d[e]); add(source[e], target[e], w); add(target[e], source[e], w); }
    for (const column of columns) {
      const at = new Map(column.map((i) => [i, pull.get(i) / weight.get(i)]));
      column.sort((a, b) => at.get(a) - at.get(b) || a - b);
      spread(column);
    }
  }
  return height;
}
