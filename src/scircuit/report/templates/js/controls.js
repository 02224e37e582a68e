/* What is asked of the edges: a search box, filters, and how many are drawn. Each writes into the address. */

import { button, chance, count, fixed, make } from "./dom.js";
import { counted } from "./filter.js";
import { DEFAULTS } from "./state.js";

const ASKED = ["q", "grade", "again", "d", "e", "p", "sign", "from", "to", "term", "only", "most", "sort"];

export class Controls {
  constructor(host, circuit, state) {
    Object.assign(this, { host, circuit, state, fields: [] });
    this.search = make("input", { type: "search", id: "search", placeholder: "CD3D, T cell, L2_F103 …", autocomplete: "off", spellcheck: "false", "aria-describedby": "search-help" });
    this.search.addEventListener("input", () => state.set({ q: this.search.value }));
    this.fields.push(() => { if (document.activeElement !== this.search || state.get("q") === "") this.search.value = state.get("q"); });
    const filters = make("details", { class: "filters" }, make("summary", {}, "Filters"));
    filters.open = window.innerWidth > 620;
    host.replaceChildren(
      make("div", { class: "box" }, make("label", { for: "search" }, "Gene, label, gene set or latent"), this.search,
        make("small", { id: "search-help" }, "genes by their beginning; press / to come here")), filters);
    filters.append(make("div", { class: "asked" },
      this.#choice("grade", "Grade, at least", counted(circuit).map(([grade, n]) => [grade, `${grade} (${count(n)})`]), circuit.facts.shown),
      ...(circuit.has("e.again") ? [this.#check("again", "found again in other cells")] : []),
      this.#choice("sign", "Sign", [["", "both"], ["supporting", "▼ supporting"], ["suppressing", "▲ suppressing"]]),
      this.#slider("d", "|d| at least", 0, Math.max(1, Math.ceil(this.#most((e) => Math.abs(circuit.d[e])) * 10) / 10), 0.05, (value) => fixed(value)),
      ...(circuit.has("e.effect_sd") ? [this.#slider("e", "effect at least, SD", 0, Math.min(5, Math.max(0.5, Math.ceil(this.#most((e) => Math.abs(circuit.of("e.effect_sd", e)) || 0)))), 0.05, (value) => fixed(value))] : []),
      this.#slider("p", "q at most", -12, this.#loosest(), 0.1, (value) => chance(value)),
      this.#choice("from", "From layer", [["", "any"], ...circuit.facts.layers.map((layer) => [String(layer), String(layer)])]),
      this.#choice("to", "To layer", [["", "any"], ...circuit.facts.layers.map((layer) => [String(layer), String(layer)])]),
      this.#term(),
      this.#slider("most", "drawn, at most", 10, Math.max(20, circuit.nEdges), 1, (value) => count(value), true),
      button("Reset", () => state.set(Object.fromEntries(ASKED.map((name) => [name, DEFAULTS[name]]))), { class: "reset" })));
  }

  refresh() { for (const field of this.fields) field(); }

  /* Of the strongest thousand, which hold it. */
  #most(value) { let most = 0; for (let e = 0; e < Math.min(this.circuit.nEdges, 1000); e += 1) most = Math.max(most, value(e)); return most; }
  #loosest() { const q = this.circuit.columns["e.q_value"]; let most = -2; for (const value of q) if (value > most) most = value; return Math.ceil(most * 10) / 10; }

  #choice(name, title, options, fallback = "") {
    const select = make("select", { id: `ask-${name}` }, options.map(([value, text]) => make("option", { value }, text)));
    select.addEventListener("change", () => this.state.set({ [name]: select.value === fallback ? "" : select.value }));
    this.fields.push(() => { select.value = this.state.get(name) || fallback; });
    return make("div", {}, make("label", { for: `ask-${name}` }, title), select);
  }

  #check(name, title) {
    const input = make("input", { type: "checkbox", id: `ask-${name}` });
    input.addEventListener("change", () => this.state.set({ [name]: input.checked ? "1" : "" }));
    this.fields.push(() => { input.checked = this.state.get(name) === "1"; });
    return make("div", { class: "check" }, input, make("label", { for: `ask-${name}` }, title));
  }

  /* `steep`: small numbers are where it matters, so the slider moves in powers. A slider of a bound is loosest at its ends. */
  #slider(name, title, low, high, step, write, steep = false) {
    const to = (value) => steep ? Math.round(low * (high / low) ** (value / 1000)) : value;
    const from = (value) => steep ? 1000 * Math.log(Math.max(value, low) / low) / Math.log(high / low) : value;
    const input = make("input", steep ? { type: "range", id: `ask-${name}`, min: 0, max: 1000, step: 1 } : { type: "range", id: `ask-${name}`, min: low, max: high, step });
    const output = make("output", { for: `ask-${name}` });
    input.addEventListener("input", () => {
      const value = to(Number(input.value));
      const loose = name === "p" && value >= high - 1e-9;
      this.state.set({ [name]: loose ? "" : String(value) });
    });
    this.fields.push(() => {
      const value = this.state.get(name) === "" ? high : Number(this.state.get(name));
      input.value = String(from(Math.min(value, high)));
      output.textContent = write(Math.min(value, high));
      input.setAttribute("aria-valuetext", output.textContent);
    });
    return make("div", {}, make("label", { for: `ask-${name}` }, `${title} `, output), input);
  }

  #term() {
    const { circuit, state } = this;
    const often = new Map();
    const names = [...circuit.columns["n.label"], ...circuit.columns["terms.name"]];
    for (const word of names) if (word) often.set(word, (often.get(word) ?? 0) + 1);
    const terms = [...often].sort((a, b) => b[1] - a[1]).slice(0, 400).map(([word]) => circuit.words[word]).sort((a, b) => a.localeCompare(b));
    if (!terms.length) return make("div", {}, make("label", { for: "ask-term" }, "Gene set"), make("select", { id: "ask-term", disabled: true }, make("option", {}, "none is significant")));
    const select = make("select", { id: "ask-term" }, make("option", { value: "" }, "any"), terms.map((term) => make("option", { value: term }, term)));
    select.addEventListener("change", () => state.set({ term: select.value }));
    this.fields.push(() => { select.value = state.get("term"); });
    return make("div", {}, make("label", { for: "ask-term" }, "Gene set"), select);
  }
}
