/* The explorer: what is asked above, the picture of the edges that pass, what is pinned beside it, the edges as a table. */

import { announce, button, count, make } from "./dom.js";
import { Controls } from "./controls.js";
import { csv, json, neuronpedia, png, save, svg } from "./export.js";
import { chosen, counted, passing } from "./filter.js";
import { handle } from "./hand.js";
import { groupMask, groups, pinned, pinPanel, togglePin, way } from "./pins.js";
import { latentLink, ranked } from "./ranked.js";
import { Search } from "./search.js";
import { View } from "./view.js";

const FOUND = 12;

export class Explore {
  constructor(host, circuit, state) {
    Object.assign(this, { host, circuit, state, search: new Search(circuit), sizes: new Map(counted(circuit)) });
    const part = (name) => host.querySelector(`[data-part="${name}"]`);
    this.parts = { found: part("found"), status: part("status"), pins: part("pins"), ranked: part("ranked"), empty: part("empty"), tools: part("tools") };
    this.controls = new Controls(part("controls"), circuit, state);
    const stage = part("stage");
    stage.replaceChildren(make("canvas", { "aria-hidden": "true" }), make("canvas", {
      tabindex: "0", role: "application", "aria-label": `Circuit of ${circuit.facts.name}`, "aria-describedby": "keys",
    }), make("div", { class: "tip", hidden: true }));
    this.view = new View(stage, circuit);
    handle(this.view, {
      open: (what) => what.node !== undefined ? state.set({ node: circuit.key(what.node) }, "feature") : state.set({ edge: circuit.edgeKey(what.edge) }, "edge"),
      pin: (i) => togglePin(circuit, state, i),
    });
    this.#tools();
  }

  refresh() {
    const { circuit, state, parts } = this;
    const width = this.view.host.parentNode.clientWidth;  // before anything is written, which would lay the page out twice
    this.controls.refresh();
    const match = this.search.matches(state.get("q"));
    this.passing = passing(circuit, state, chosen(this.search, state, groupMask(circuit, state)));
    const found = way(circuit, state, this.passing);
    const drawn = this.#drawn(found);
    const marked = new Map(pinned(circuit, state).map((i) => [i, "pinned"]));
    for (const [name, own] of groups(circuit, state)) for (const i of own) marked.set(i, name);
    if (match) match.forEach((hit, i) => { if (hit) marked.set(i, "found"); });
    this.#status(drawn, match);
    this.#foundLatents(match);
    this.#empty();
    pinPanel(parts.pins, circuit, state, this.passing);
    ranked(parts.ranked, circuit, state, this.passing);
    this.view.rest = found?.length ? { edges: found } : null;
    if (drawn.length && width) this.view.show(drawn, marked, width);
  }

  /* The strongest that pass, whatever the table is ordered by, and every edge of a path. */
  #drawn(found) {
    const byStrength = this.state.get("sort") === "d" ? this.passing : Uint32Array.from(this.passing).sort();
    const strongest = byStrength.subarray(0, this.state.number("most"));
    if (!found?.length) return strongest;
    return Uint32Array.from(new Set([...strongest, ...found])).sort();
  }

  #status(drawn, match) {
    const { circuit, state } = this;
    const parts = [`Showing ${count(drawn.length)} of ${count(circuit.facts.n_edges)} edges`];
    if (drawn.length < this.passing.length) parts.push(`the strongest of ${count(this.passing.length)} that pass the filters`);
    if (circuit.nEdges < circuit.facts.n_edges) parts.push(`the page holds the strongest ${count(circuit.nEdges)}`);
    if (match) parts.push(`${count(match.reduce((sum, hit) => sum + hit, 0))} latents match “${state.get("q").trim()}”`);
    const text = `${parts.join("; ")}.`;
    if (text !== this.parts.status.textContent) announce(text);
    this.parts.status.textContent = text;
  }

  #foundLatents(match) {
    const { circuit, state, parts } = this;
    if (!match) { parts.found.replaceChildren(); return; }
    const hits = [...match.keys()].filter((i) => match[i]).sort((a, b) => circuit.degree(b) - circuit.degree(a));
    parts.found.replaceChildren(...hits.slice(0, FOUND).map((i) => latentLink(circuit, state, i)), hits.length > FOUND ? `and ${count(hits.length - FOUND)} more` : "");
  }

  /* Where nothing passes, why, and what would: most often a wider grade. */
  #empty() {
    const { circuit, state, parts } = this;
    const none = this.passing.length === 0;
    parts.empty.hidden = !none;
    for (const part of [this.view.host, parts.tools, parts.ranked, document.getElementById("keys")]) part.hidden = none;
    if (none) {
      const grade = state.get("grade") || circuit.facts.shown;
      const { sizes } = this;
      const wider = [...sizes].filter(([other, n]) => n > 0 && other !== grade);
      const why = sizes.get(grade) === 0 ? `No edge of this run is ${grade}.` : "No edge passes these filters.";
      const offer = sizes.get(grade) === 0 && wider.length ? [make("p", {}, "The wider circuit is here too. Answer says how many such edges decoys without meaning give: read that first."),
        make("p", { class: "line" }, wider.map(([other, n]) => button(`Show the ${count(n)} ${other} edges`, () => state.set({ grade: other })))) ] : [];
      parts.empty.replaceChildren(make("p", {}, make("b", {}, why)), ...offer);
    }
  }

  #tools() {
    const { circuit, state, view } = this;
    const name = () => `${circuit.facts.name.replace(/[^A-Za-z0-9_-]/g, "-")}-view`;
    const shown = () => view.edges;
    const write = {
      SVG: () => save(`${name()}.svg`, "image/svg+xml", svg(view)),
      PNG: () => png(view, (blob) => save(`${name()}.png`, "image/png", blob)),
      CSV: () => save(`${name()}.csv`, "text/csv", csv(circuit, this.passing)),
      JSON: () => save(`${name()}.json`, "application/json", json(circuit, this.passing, state)),
      Neuronpedia: () => save(`${name()}-neuronpedia.json`, "application/json", neuronpedia(circuit, shown(), state)),
    };
    const help = { SVG: "the picture", PNG: "the picture", CSV: "every edge that passes", JSON: "every edge that passes, with its latents", Neuronpedia: "the edges drawn; groups become supernodes" };
    const zoom = (factor) => view.zoomAt(view.place.width / 2, view.place.height / 2, factor);
    this.parts.tools.replaceChildren(
      make("span", { class: "line" }, button("+", () => zoom(1.3), { "aria-label": "zoom in" }), button("−", () => zoom(1 / 1.3), { "aria-label": "zoom out" }), button("Fit", () => view.fit())),
      make("span", { class: "line", role: "group", "aria-label": "Save the view as" }, "Save as ", Object.keys(write).map((kind) => button(kind, write[kind], { title: help[kind], "data-save": kind }))));
  }
}
