/* Latents by gene (its beginning), by label or gene set (any part), or by number (L2_F103, 2.103, 103). */

export class Search {
  constructor(circuit) {
    this.circuit = circuit;
    this.words = circuit.words.map((word) => word.toLowerCase());
  }

  /* Which latents match, 0 or 1 by their number; null where nothing is asked. */
  matches(text) {
    const asked = text.trim().toLowerCase();
    if (!asked) return null;
    const { circuit, words } = this;
    const { columns, nNodes } = circuit;
    const begins = Uint8Array.from(words, (word) => word.startsWith(asked) ? 1 : 0);
    const holds = Uint8Array.from(words, (word) => word.includes(asked) ? 1 : 0);
    const found = new Uint8Array(nNodes);
    for (let i = 0; i < nNodes; i += 1) if (holds[columns["n.label"][i]]) found[i] = 1;
    this.#spread(found, "genes", begins);
    this.#spread(found, "terms", holds);
    const place = /^l?(\d+)\s*[._·\s]\s*f?(\d+)$/.exec(asked);
    const node = place ? circuit.at.get(`${Number(place[1])}.${Number(place[2])}`) : undefined;
    if (node !== undefined) found[node] = 1;
    if (/^\d+$/.test(asked)) for (let i = 0; i < nNodes; i += 1) if (circuit.feature[i] === Number(asked)) found[i] = 1;
    return found;
  }

  #spread(found, part, hit) {
    const at = this.circuit.columns[`${part}.at`];
    const name = this.circuit.columns[`${part}.name`];
    for (let i = 0; i < found.length; i += 1) for (let row = at[i]; !found[i] && row < at[i + 1]; row += 1) found[i] = hit[name[row]];
  }

  /* Latents with that very label or gene set. */
  withTerm(term) {
    const word = this.circuit.words.indexOf(term);
    const found = new Uint8Array(this.circuit.nNodes);
    if (word <= 0) return found;
    for (let i = 0; i < found.length; i += 1) if (this.circuit.columns["n.label"][i] === word) found[i] = 1;
    this.#spread(found, "terms", Uint8Array.from(this.words, (_, w) => w === word ? 1 : 0));
    return found;
  }
}
