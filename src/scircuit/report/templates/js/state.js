/* What the reader looks at, kept in the hash of the address: a link, and the browser's back button, lead there again. */

export const SCREENS = ["answer", "explore", "feature", "edge", "evidence"];
export const DEFAULTS = {
  run: "", q: "", grade: "", again: "", d: "0", e: "0", p: "", sign: "", from: "", to: "", term: "", most: "200", sort: "d", only: "",
  pins: "", groups: "", path: "", node: "", edge: "", theme: "",
};
/* What belongs to the latents of one run. */
const OF_RUN = ["pins", "groups", "path", "node", "edge", "term", "from", "to", "grade", "q", "only"];

export class State {
  constructor() {
    this.listeners = [];
    this.read();
    window.addEventListener("hashchange", () => { const before = this.written; this.read(); if (before !== this.written) this.tell(); });
  }

  read() {
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
    const before = this.values.run;
    Object.assign(this.values, changes);
    if (changes.run !== undefined && changes.run !== before) for (const name of OF_RUN) this.values[name] = DEFAULTS[name];
    if (screen) this.place = this.screen = screen;
    this.write(Boolean(screen));
    this.tell();
  }

  link(changes, screen) {
    const values = { ...this.values, ...changes };
    const given = new URLSearchParams(Object.entries(values).filter(([name, value]) => value !== DEFAULTS[name]));
    return `#${screen}${[...given].length ? `?${given}` : ""}`;
  }

  write(step) {
    const link = this.link({}, this.screen);
    if (link === location.hash) return;
    history[step ? "pushState" : "replaceState"](null, "", link);
    this.written = link;
  }

  tell() { for (const listener of this.listeners) listener(); }
}
