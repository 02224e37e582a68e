/* The interactive picture: layers as columns, features as points, edges coloured by sign.
   All text from the data goes through textContent, never through markup. */
(() => {
  "use strict";
  const runs = JSON.parse(document.getElementById("data").textContent);
  const bar = document.querySelector(".controls");
  const hosts = [...document.querySelectorAll(".picture")];
  if (!bar || !hosts.length) return;

  const [SOURCE, TARGET, D, Q, CELLS, NONZERO, CONSISTENCY, DELTA] = [0, 1, 2, 3, 4, 5, 6, 7];
  const NAMED = 26;
  const LISTED = 60;

  function make(name, attributes = {}, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  }
  function draw(name, attributes = {}, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }
  const fixed = (value, digits = 2) => value === null ? "–" : value.toFixed(digits).replace("-", "−");
  const raised = (power) => [...String(power)].map((c) => c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]).join("");
  function short(value) {
    if (value === null) return "–";
    if (value === 0 || Math.abs(value) >= 0.001) return String(Number(value.toPrecision(3))).replace("-", "−");
    const [mantissa, power] = value.toExponential(1).split("e");
    return `${mantissa.replace("-", "−")}×10${raised(Number(power))}`;
  }
  const sign = (edge) => edge[D] < 0 ? "supporting" : "suppressing";
  const place = (node) => `L${node.layer} · ${node.feature}`;
  const cut = (text, length) => text.length > length ? text.slice(0, Math.max(length - 1, 1)) + "…" : text;

  const all = Object.values(runs).flatMap((run) => run.edges);
  const strengths = all.map((edge) => Math.abs(edge[D]));
  const carried = Math.max(...Object.values(runs).map((run) => run.edges.length));
  const opened = Math.min(carried, Math.max(...Object.values(runs).map((run) => run.shown)));
  const least = Math.floor(Math.min(...strengths) * 100) / 100;
  const most = Math.ceil(Math.max(...strengths) * 100) / 100;
  const qs = all.map((edge) => edge[Q]).filter((q) => q > 0);
  const deepest = Math.floor(Math.log10(Math.min(1e-2, ...qs)));
  const loosest = Math.ceil(Math.log10(Math.max(1e-3, ...qs)) * 10) / 10;
  const state = {};

  /* One edge list for every picture: the filters are shared so that runs can be compared. */
  function slider(title, attributes, read, write) {
    const output = make("output");
    const input = make("input", { type: "range", ...attributes });
    const update = () => { read(Number(input.value)); output.textContent = write(); };
    input.addEventListener("input", () => { update(); refresh(); });
    update();
    return { label: make("label", {}, make("span", {}, `${title} `, output), input), input, update };
  }
  const search = make("input", { type: "search", placeholder: "gene or label, e.g. CD3D", "aria-label": "Search by gene or label" });
  const sliders = [
    slider("|d| at least", { min: least, max: most, step: 0.01, value: least },
      (value) => { state.d = value; }, () => state.d.toFixed(2)),
    slider("q at most", { min: deepest, max: loosest, step: 0.1, value: loosest },
      (value) => { state.q = 10 ** value; }, () => short(state.q)),
    slider("edges drawn, at most", { min: Math.min(10, carried), max: carried, step: 1, value: opened },
      (value) => { state.limit = value; }, () => String(state.limit)),
  ];
  function check(name) {
    const input = make("input", { type: "checkbox" });
    input.checked = state[name] = true;
    input.addEventListener("change", () => { state[name] = input.checked; refresh(); });
    return { input, label: make("label", { class: "check" }, input, name) };
  }
  const signs = ["supporting", "suppressing"].map(check);
  state.text = "";
  search.addEventListener("input", () => { state.text = search.value.trim().toLowerCase(); refresh(); });
  const reset = make("button", { type: "button", onclick: () => {
    search.value = state.text = "";
    for (const { input, update } of sliders) { input.value = input.defaultValue; update(); }
    for (const { input } of signs) { input.checked = true; state[input.parentNode.textContent] = true; }
    for (const picture of pictures) picture.choose(null);
    refresh();
  } }, "Reset");
  bar.append(make("label", {}, "Search", search), ...sliders.map((s) => s.label), ...signs.map((s) => s.label), reset);
  bar.hidden = false;

  class Picture {
    constructor(host) {
      this.run = runs[host.dataset.run];
      this.host = host;
      this.edgesOf = this.run.nodes.map(() => []);
      this.run.edges.forEach((edge) => { this.edgesOf[edge[SOURCE]].push(edge); this.edgesOf[edge[TARGET]].push(edge); });
      this.layers = [...new Set(this.run.nodes.map((node) => node.layer))].sort((a, b) => a - b);
      this.status = make("p", { class: "status", role: "status" });
      this.stage = draw("svg", { class: "stage", role: "group", "aria-label": `Circuit of ${this.run.name}; arrow keys move between features, Enter opens one` });
      this.tip = make("div", { class: "tip", hidden: "" });
      this.detail = make("div", { class: "detail", hidden: "", "aria-live": "polite" });
      this.legend = make("p", { class: "legend" }, make("i"), "supporting: target falls", make("i", { class: "up" }), "suppressing: target rises. Filled points were silenced; width grows with |d|.");
      host.classList.add("live");
      host.append(this.status, this.stage, this.legend, this.tip, this.detail);
      this.stage.addEventListener("keydown", (event) => this.move(event));
      this.chosen = null;
    }

    matches(node) {
      return node.label.toLowerCase().includes(state.text) || node.name.toLowerCase().includes(state.text)
        || node.genes.some((gene) => gene.toLowerCase().startsWith(state.text));
    }

    visible() {
      const hit = state.text ? this.run.nodes.map((node) => this.matches(node)) : null;
      this.hit = hit;
      const passing = this.run.edges.filter((edge) => Math.abs(edge[D]) >= state.d && (edge[Q] ?? 1) <= state.q * 1.0001
        && state[sign(edge)] && (!hit || hit[edge[SOURCE]] || hit[edge[TARGET]]));
      return { passing: passing.length, edges: passing.slice(0, state.limit) };
    }

    refresh() {
      const { passing, edges } = this.visible();
      this.edges = edges;
      const total = this.run.n_edges;
      const inside = this.run.edges.length;
      const parts = [`Showing ${edges.length.toLocaleString("en")} of ${total.toLocaleString("en")} edges`];
      if (edges.length < passing) parts.push(`the strongest of ${passing.toLocaleString("en")} that pass the filters`);
      if (inside < total) parts.push(`the page holds the strongest ${inside.toLocaleString("en")}`);
      if (this.hit) parts.push(`${this.hit.filter(Boolean).length} features match “${state.text}”`);
      this.status.textContent = parts.join("; ") + ".";
      this.layOut();
      this.paint();
      this.emphasise(this.chosen);
    }

    layOut() {
      const used = [...new Set(this.edges.flatMap((edge) => [edge[SOURCE], edge[TARGET]]))].sort((a, b) => a - b);
      const columns = this.layers.map((layer) => used.filter((i) => this.run.nodes[i].layer === layer));
      this.width = Math.max(this.host.clientWidth, 300);
      this.height = Math.min(820, Math.max(380, 15 * Math.max(1, ...columns.map((column) => column.length))));
      const right = Math.min(150, this.width * 0.22);
      this.gap = (this.width - 24 - right) / Math.max(this.layers.length - 1, 1);
      this.points = new Map();
      columns.forEach((column, c) => column.forEach((i, r) => this.points.set(i, {
        x: 12 + c * this.gap, y: 26 + (r + 0.5) / column.length * this.height, strength: 0, degree: 0, last: c === this.layers.length - 1,
      })));
      for (const edge of this.edges) for (const end of [edge[SOURCE], edge[TARGET]]) {
        this.points.get(end).strength += Math.abs(edge[D]);
        this.points.get(end).degree += 1;
      }
    }

    paint() {
      const edges = draw("g");
      for (const edge of [...this.edges].reverse()) edges.append(this.edgeShape(edge));
      const nodes = draw("g");
      this.shapes = new Map();
      for (const i of this.points.keys()) this.shapes.set(i, nodes.appendChild(this.nodeShape(i)));
      const axis = this.layers.map((layer, c) => draw("text", { class: "axis", x: 12 + c * this.gap, y: 12, "text-anchor": c ? "middle" : "start" }, c ? String(layer) : `layer ${layer}`));
      this.stage.setAttribute("viewBox", `0 0 ${this.width} ${this.height + 32}`);
      this.stage.replaceChildren(...axis, edges, nodes, this.names());
      const first = this.shapes.values().next().value;
      if (first) first.setAttribute("tabindex", "0");
    }

    edgeShape(edge) {
      const [a, b] = [this.points.get(edge[SOURCE]), this.points.get(edge[TARGET])];
      const bend = (b.x - a.x) / 2;
      const d = `M${a.x} ${a.y}C${a.x + bend} ${a.y} ${b.x - bend} ${b.y} ${b.x} ${b.y}`;
      const shape = draw("g", { class: `edge ${edge[D] < 0 ? "down" : "up"}` },
        draw("path", { class: "line", d, "stroke-width": (0.5 + 3.5 * Math.abs(edge[D]) / most).toFixed(2) }), draw("path", { class: "reach", d }));
      shape.edge = edge;
      shape.addEventListener("pointerenter", (event) => this.hint(event, this.edgeText(edge)));
      shape.addEventListener("pointerleave", () => { this.tip.hidden = true; });
      shape.addEventListener("click", () => this.choose({ edge }));
      return shape;
    }

    nodeShape(i) {
      const node = this.run.nodes[i];
      const point = this.points.get(i);
      const shape = draw("g", { class: "node" + (node.source ? " source" : "") + (this.hit?.[i] ? " match" : ""), tabindex: "-1", role: "button", "aria-label": `${place(node)} ${node.name}, ${point.degree} edges shown` },
        draw("circle", { cx: point.x, cy: point.y, r: Math.min(7, 2.4 + Math.sqrt(point.degree)).toFixed(1) }));
      shape.node = i;
      shape.addEventListener("pointerenter", (event) => { this.hint(event, this.nodeText(node)); this.emphasise({ node: i }); });
      shape.addEventListener("pointerleave", () => { this.tip.hidden = true; this.emphasise(this.chosen); });
      shape.addEventListener("click", () => this.choose({ node: i }));
      return shape;
    }

    /* The strongest features get their names, as long as two names in one column do not touch. */
    names() {
      const group = draw("g");
      const taken = [];
      const ranked = [...this.points].sort((a, b) => (this.hit ? this.hit[b[0]] - this.hit[a[0]] : 0) || b[1].strength - a[1].strength);
      for (const [i, point] of ranked) {
        if (taken.length >= NAMED) break;
        if (taken.some((other) => other.x === point.x && Math.abs(other.y - point.y) < 13)) continue;
        const room = point.last ? Math.min(150, this.width * 0.22) - 6 : this.gap - 16;
        if (room < 34) continue;
        taken.push(point);
        group.append(draw("text", { class: "name", ...(point.last ? { x: point.x + 9, y: point.y + 3.5 } : { x: point.x + 5, y: point.y - 5 }) }, cut(this.run.nodes[i].name, Math.floor(room / 5.6))));
      }
      return group;
    }

    nodeText(node) {
      return [make("p", {}, make("b", {}, node.name)), make("p", {}, `${place(node)}${node.source ? ", silenced" : ""}`), make("p", {}, node.genes.slice(0, 8).join(", ") || "no gene fired often enough")];
    }

    edgeText(edge) {
      const [a, b] = [this.run.nodes[edge[SOURCE]], this.run.nodes[edge[TARGET]]];
      return [make("p", {}, make("b", {}, `${a.name} → ${b.name}`)), make("p", {}, `${place(a)} → ${place(b)}, ${sign(edge)}`),
        make("p", {}, `d = ${fixed(edge[D])}, q = ${short(edge[Q])}, n = ${edge[CELLS]} cells`)];
    }

    hint(event, content) {
      this.tip.replaceChildren(...content);
      this.tip.hidden = false;
      const box = this.host.getBoundingClientRect();
      const x = event.clientX - box.left;
      this.tip.style.left = `${Math.max(0, Math.min(x + 14, box.width - this.tip.offsetWidth))}px`;
      this.tip.style.top = `${event.clientY - box.top + 16}px`;
    }

    emphasise(what) {
      const near = new Set();
      for (const shape of this.stage.querySelectorAll(".edge")) {
        const mine = what !== null && (what.edge === shape.edge || shape.edge[SOURCE] === what.node || shape.edge[TARGET] === what.node);
        shape.classList.toggle("near", mine);
        if (mine) { near.add(shape.edge[SOURCE]); near.add(shape.edge[TARGET]); }
      }
      for (const [i, shape] of this.shapes) {
        shape.classList.toggle("near", near.has(i));
        shape.classList.toggle("chosen", this.chosen !== null && this.chosen.node === i);
      }
      this.stage.classList.toggle("focus", near.size > 0);
    }

    choose(what) {
      this.chosen = what;
      this.tip.hidden = true;
      this.detail.hidden = what === null;
      if (what !== null) this.detail.replaceChildren(
        make("button", { type: "button", class: "close", onclick: () => this.choose(null) }, "Close"),
        ...("node" in what ? this.nodeDetail(what.node) : this.edgeDetail(what.edge)));
      this.emphasise(what);
    }

    about(i) {
      const node = this.run.nodes[i];
      const terms = node.terms.map(([term, q]) => `${term} (q = ${short(q)})`).join("; ");
      return [make("h4", {}, node.name),
        make("p", {}, `Layer ${node.layer}, latent ${node.feature}${node.source ? ", silenced as a source" : ""}; fires at ${node.frequency === null ? "–" : (100 * node.frequency).toPrecision(3)}% of gene positions, mean activation ${short(node.activation)} when it does.`),
        make("p", {}, make("b", {}, "Top genes: "), make("span", { class: "genes", style: "display:inline" }, node.genes.join(", ") || "none")),
        make("p", {}, make("b", {}, "Enriched sets: "), terms || "none")];
    }

    nodeDetail(i) {
      const mine = this.edgesOf[i];
      const rows = mine.slice(0, LISTED).map((edge) => {
        const out = edge[SOURCE] === i;
        const other = out ? edge[TARGET] : edge[SOURCE];
        return [out ? "to" : "from", make("button", { type: "button", class: "link", onclick: () => this.choose({ node: other }) }, `${place(this.run.nodes[other])} ${this.run.nodes[other].name}`), ...this.cells(edge)];
      });
      const held = this.run.edges.length < this.run.n_edges ? " held by this page" : "";
      return [...this.about(i), make("p", { class: "caption" }, `Showing ${rows.length} of its ${mine.length} edges${held}, strongest first.`),
        this.table(["", "feature", "sign", "n", "d", "mean change", "consistency", "q"], rows)];
    }

    edgeDetail(edge) {
      const shared = this.run.nodes[edge[SOURCE]].genes.filter((gene) => this.run.nodes[edge[TARGET]].genes.includes(gene));
      return [make("p", { class: "caption" }, "Source"), ...this.about(edge[SOURCE]), make("p", { class: "caption" }, "Target"), ...this.about(edge[TARGET]),
        make("p", {}, make("b", {}, "Shared top genes: "), shared.join(", ") || "none"),
        this.table(["sign", "n", "d", "mean change", "consistency", "q"], [this.cells(edge)])];
    }

    cells(edge) {
      return [sign(edge), `${edge[NONZERO]} of ${edge[CELLS]}`, fixed(edge[D]), short(edge[DELTA]), `${(100 * edge[CONSISTENCY]).toFixed(0)}%`, short(edge[Q])];
    }

    table(titles, rows) {
      const words = ["", "feature", "sign"];
      const look = (title, cell) => !words.includes(title) ? { class: "number" } : title === "feature" ? {} : { class: title ? cell : "way" };
      const head = make("tr", {}, ...titles.map((title) => make("th", { scope: "col", ...(words.includes(title) ? {} : { class: "number" }) }, title)));
      const body = rows.map((row) => make("tr", {}, ...row.map((cell, c) => make("td", look(titles[c], cell), cell))));
      return make("div", { class: "scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)),
        make("p", { class: "definitions" }, "n: cells with a changed target, of the cells in which the source fires; d: mean change / standard deviation over the latter; mean change in units of the target's activation; q: Benjamini-Hochberg over all tests."));
    }

    move(event) {
      const shape = event.target.closest(".node");
      if (!shape) return;
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); this.choose({ node: shape.node }); return; }
      if (event.key === "Escape") { this.choose(null); return; }
      const steps = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
      if (!steps) return;
      event.preventDefault();
      const here = this.points.get(shape.node);
      let best = null;
      for (const [i, point] of this.points) {
        const [dx, dy] = [point.x - here.x, point.y - here.y];
        const ahead = steps[0] ? dx * steps[0] : (dx === 0 ? dy * steps[1] : 0);
        if (ahead <= 0) continue;
        const cost = ahead * 3 + Math.abs(steps[0] ? dy : 0);
        if (best === null || cost < best.cost) best = { i, cost };
      }
      if (best === null) return;
      shape.setAttribute("tabindex", "-1");
      const next = this.shapes.get(best.i);
      next.setAttribute("tabindex", "0");
      next.focus();
      this.emphasise({ node: best.i });
    }
  }

  const pictures = hosts.map((host) => new Picture(host));
  function refresh() { for (const picture of pictures) picture.refresh(); }
  refresh();
  let pending = 0;
  window.addEventListener("resize", () => { cancelAnimationFrame(pending); pending = requestAnimationFrame(refresh); });
})();
