/* What the reader looks at, kept in the hash of the address: a link, and the browser's back button, lead there again. */

export const SCREENS = ["answer", "explore", "feature", "edge", "evidence"];
export const DEFAULTS = {
  run: "", q: "", grade: "", again: "", d: "0", e: "0", p: "", sign: "", from: "", to: "", term: "", most: "150", sort: "d", only: "",
  pins: "", groups: "", path: "", node: "", edge: "", theme: "",
};
/* Milliseconds until a filter stands in the address: browsers count how often it changes. */
const LATER = 150;
/* What belongs to the latents of one run. */
const OF_RUN = ["pins", "groups", "path", "node", "edge", "term", "from", "to", "grade", "q", "only"];

export class State {
  constructor() {
    this.listeners = [];
    this.read();
    window.addEventListener("hashchange", () => { const before = this.written; this.read(); if (before !== this.written) this.tell(); });
  }

  read() {
    clearTimeout(this.waiting);
    this.written = location.hash;
    const [place, asked = ""] = location.hash.slice(1).split("?");
    const given = new URLSearchParams(asked);
    this.values = { ...DEFAULTS };
    for (const name of Object.keys(DEFAULTS)) if (given.has(name)) this.values[name] = given.get(name);
    this.place = place;
    this.screen = SCREENS.includes(place) ? place : place && document.getElementById(place)?.closest(".screen")?.id || "answer";
  }

  get(name) { return this.values[name]; }
  number(name) { return Number(this.values[name]) || 0; }
  list(name) { return this.values[name] ? this.values[name].split(",") : []; }

  /* `screen` leaves a step for the back button; a change of a filter does not. */
  set(changes, screen = null) {
    if (screen) this.write();
    const before = this.values.run;
    Object.assign(this.values, changes);
    if (changes.run !== undefined && changes.run !== before) for (const name of OF_RUN) this.values[name] = DEFAULTS[name];
    if (screen) this.place = this.screen = screen;
    clearTimeout(this.waiting);
    if (screen) this.write("pushState"); else this.waiting = setTimeout(() => this.write(), LATER);
    this.tell();
  }

  link(changes, screen) {
    const values = { ...this.values, ...changes };
    const given = new URLSearchParams(Object.entries(values).filter(([name, value]) => value !== DEFAULTS[name]));
    return `#${screen}${[...given].length ? `?${given}` : ""}`;
  }

  write(how = "replaceState") {
    clearTimeout(this.waiting);
    const link = this.link({}, this.place || this.screen);
    if (link === location.hash) return;
    history[how](null, "", link);
    this.written = link;
  }

  tell() { for (const listener of this.listeners) listener(); }
}
