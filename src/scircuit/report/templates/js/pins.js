/* Pinned latents, groups of them under a name, and the ways between two: all kept in the address. */

import { announce, button, fixed, make } from "./dom.js";
import { edgeInWords } from "./hand.js";
import { path } from "./paths.js";

export function pinned(circuit, state) { return state.list("pins").map((key) => circuit.at.get(key)).filter((i) => i !== undefined); }
export function togglePin(circuit, state, i) {
  const key = circuit.key(i);
  const pins = state.list("pins");
  const there = pins.includes(key);
  state.set({ pins: (there ? pins.filter((other) => other !== key) : [...pins, key]).join(","), ...(there ? { path: "" } : {}) });
  announce(`${circuit.place(i)} ${there ? "no longer pinned" : "pinned"}`);
}

/* Groups as [name, latents]; in the address `name:1.20+2.3;...`, names with everything else escaped. */
export function groups(circuit, state) {
  return state.get("groups").split(";").filter(Boolean).map((part) => {
    const [name, keys = ""] = part.split(":");
    return [decodeURIComponent(name), keys.split("+").map((key) => circuit.at.get(key)).filter((i) => i !== undefined)];
  });
}
function write(circuit, state, list) {
  const told = list.map(([name, own]) => `${encodeURIComponent(name)}:${own.map((i) => circuit.key(i)).join("+")}`);
  state.set({ groups: told.join(";"), ...(list.some(([name]) => name === state.get("only")) ? {} : { only: "" }) });
}

export function groupMask(circuit, state) {
  const found = groups(circuit, state).find(([name]) => name === state.get("only"));
  if (!found) return null;
  const mask = new Uint8Array(circuit.nNodes);
  for (const i of found[1]) mask[i] = 1;
  return mask;
}

/* The edges of the way that is asked for between the first two pins; null where none is asked, empty where there is none. */
export function way(circuit, state, edges) {
  const [a, b] = pinned(circuit, state);
  if (!state.get("path") || b === undefined) return null;
  return path(circuit, edges, a, b, state.get("path")) ?? [];
}

export function pinPanel(host, circuit, state, edges) {
  const pins = pinned(circuit, state);
  const named = groups(circuit, state);
  const parts = [make("h3", {}, "Pinned latents")];
  if (!pins.length) parts.push(make("p", { class: "hint" }, "Pin latents (in the table, on their page, or with p in the picture) to keep them in sight, name them as a group, and ask how one reaches another."));
  parts.push(make("ul", { class: "pins" }, pins.map((i) => make("li", {},
    make("a", { href: state.link({ node: circuit.key(i) }, "feature") }, `${circuit.place(i)} ${circuit.name(i)}`),
    button("×", () => togglePin(circuit, state, i), { class: "small", "aria-label": `unpin ${circuit.place(i)}` })))));
  if (pins.length) parts.push(nameForm(circuit, state, pins, named));
  if (named.length) parts.push(make("h3", {}, "Groups"), make("ul", { class: "pins" }, named.map(([name, own]) => groupLine(circuit, state, name, own, named))));
  if (pins.length >= 2) parts.push(...ways(circuit, state, edges, pins));
  host.replaceChildren(...parts);
}

function nameForm(circuit, state, pins, named) {
  const input = make("input", { type: "text", name: "group", maxlength: "60", placeholder: "name of a group", "aria-label": "Name of a group of the pinned latents" });
  return make("form", { class: "line", onsubmit: (event) => {
    event.preventDefault();
    const name = input.value.trim();
    if (name) write(circuit, state, [...named.filter(([other]) => other !== name), [name, pins]]);
  } }, input, make("button", { type: "submit" }, "Group"));
}

function groupLine(circuit, state, name, own, named) {
  const on = state.get("only") === name;
  return make("li", {}, button(`${name} (${own.length})`, () => state.set({ only: on ? "" : name }), { class: "chip", "aria-pressed": String(on) }),
    button("×", () => write(circuit, state, named.filter(([other]) => other !== name)), { class: "small", "aria-label": `remove the group ${name}` }));
}

function ways(circuit, state, edges, [a, b]) {
  const found = way(circuit, state, edges);
  const choose = (kind) => button(kind, () => state.set({ path: state.get("path") === kind ? "" : kind }), { class: "chip", "aria-pressed": String(state.get("path") === kind) });
  const parts = [make("h3", {}, "Path between the first two"), make("p", { class: "line" }, choose("shortest"), choose("strongest"))];
  if (!found) return parts;
  if (!found.length) return [...parts, make("p", { class: "path" }, `No edges that pass the filters lead from one to the other (${circuit.place(a)}, ${circuit.place(b)}).`)];
  const weakest = Math.min(...found.map((e) => Math.abs(circuit.d[e])));
  return [...parts, make("ol", { class: "path" }, found.map((e) => make("li", {}, make("a", { href: state.link({ edge: circuit.edgeKey(e) }, "edge") }, edgeInWords(circuit, e))))),
    make("p", { class: "hint" }, `${found.length} ${found.length === 1 ? "edge" : "edges"}, the weakest with |d| ${fixed(weakest)}. Shortest: fewest edges; strongest: the weakest edge is as strong as can be. Each edge was measured by itself; that the whole way carries an effect was not.`)];
}
