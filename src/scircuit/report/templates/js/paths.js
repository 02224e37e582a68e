/* Ways from one latent to a later one along edges: with the fewest edges, or with the strongest weakest edge. */

/* Edges of the best way in order, null where there is none. Edges lead to later layers only, so one pass does. */
export function path(circuit, edges, a, b, kind) {
  const { source, target, d, layer } = circuit;
  const [from, to] = layer[a] <= layer[b] ? [a, b] : [b, a];
  const worth = new Map([[from, kind === "shortest" ? 0 : Infinity]]);
  const by = new Map();
  const later = [...edges].filter((e) => layer[source[e]] >= layer[from] && layer[target[e]] <= layer[to]);
  later.sort((e, f) => layer[source[e]] - layer[source[f]] || e - f);
  for (const e of later) {
    if (!worth.has(source[e])) continue;
    const before = worth.get(source[e]);
    const now = kind === "shortest" ? before - 1 : Math.min(before, Math.abs(d[e]));
    if (!worth.has(target[e]) || now > worth.get(target[e])) { worth.set(target[e], now); by.set(target[e], e); }
  }
  if (!by.has(to)) return null;
  const found = [];
  for (let i = to; i !== from; i = source[by.get(i)]) found.unshift(by.get(i));
  return found;
}
