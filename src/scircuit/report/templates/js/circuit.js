/* A circuit: edges and latents by their number, over typed arrays. Edges are numbered from the strongest down. */

import { unpack } from "./unpack.js";

export const GRADES = ["reproducible", "sizeable", "specific"];

export class Circuit {
  static async of(text) {
    const { facts, columns } = await unpack(text);
    return new Circuit(facts, columns);
  }

  constructor(facts, columns) {
    Object.assign(this, { facts, columns, words: facts.words });
    this.source = columns["e.source"];
    this.target = columns["e.target"];
    this.d = columns["e.cohens_d"];
    this.layer = columns["n.layer"];
    this.feature = columns["n.feature"];
    this.nEdges = this.source.length;
    this.nNodes = this.layer.length;
    this.#joinEdges();
    this.at = new Map();
    for (let i = 0; i < this.nNodes; i += 1) this.at.set(this.key(i), i);
  }

  /* Edges of each latent, strongest first, one after the other. */
  #joinEdges() {
    this.first = new Uint32Array(this.nNodes + 1);
    for (const ends of [this.source, this.target]) for (const i of ends) this.first[i + 1] += 1;
    for (let i = 0; i < this.nNodes; i += 1) this.first[i + 1] += this.first[i];
    const next = this.first.slice(0, -1);
    this.joined = new Uint32Array(2 * this.nEdges);
    for (let e = 0; e < this.nEdges; e += 1) for (const i of [this.source[e], this.target[e]]) { this.joined[next[i]] = e; next[i] += 1; }
  }

  has(name) { return name in this.columns; }
  of(name, i) { return this.has(name) ? this.columns[name][i] : null; }
  edgesOf(i) { return this.joined.subarray(this.first[i], this.first[i + 1]); }
  degree(i) { return this.first[i + 1] - this.first[i]; }

  /* Rows of a part (`genes`, `terms`, `cells`, ...) that belong to latent or edge i; empty where it is not held. */
  rows(part, i) {
    const at = this.columns[`${part}.at`];
    return at ? Array.from({ length: at[i + 1] - at[i] }, (_, k) => at[i] + k) : [];
  }
  word(name, row) { return this.words[this.columns[name][row]]; }

  key(i) { return `${this.layer[i]}.${this.feature[i]}`; }
  id(i) { return `L${this.layer[i]}_F${this.feature[i]}`; }
  place(i) { return `L${this.layer[i]} · ${this.feature[i]}`; }
  label(i) { return this.word("n.label", i); }
  genes(i) { return this.rows("genes", i).map((row) => this.word("genes.name", row)); }
  name(i) { return this.label(i) || this.genes(i).slice(0, 2).join(", ") || `feature ${this.feature[i]}`; }
  isSource(i) { return this.columns["n.is_source"][i] === 1; }

  sign(e) { return this.d[e] < 0 ? "supporting" : "suppressing"; }
  grade(e) { return GRADES[this.columns["e.grade"][e]]; }
  again(e) { return ["not measured again", "not found again", "found again"][this.of("e.again", e) ?? 0]; }
  edgeKey(e) { return `${this.key(this.source[e])}-${this.key(this.target[e])}`; }
  edgeAt(key) {
    const [a, b] = (key ?? "").split("-").map((end) => this.at.get(end));
    if (a === undefined || b === undefined) return null;
    return this.edgesOf(a).find((e) => this.source[e] === a && this.target[e] === b) ?? null;
  }
}
