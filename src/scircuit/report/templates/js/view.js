/* The picture: edges on one canvas, latents, names and what is looked at on another above it; zoom and pan. */

import { layOut } from "./layout.js";
import { cut } from "./dom.js";

const SLICE = 2000;
const CURVED = 6000;
const NAMED = 34;
const look = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class View {
  constructor(host, circuit) {
    Object.assign(this, { host, circuit, edges: new Uint32Array(0), marked: new Map(), focus: null, rest: null, zoom: { k: 1, x: 0, y: 0 } });
    [this.under, this.over] = host.querySelectorAll("canvas");
  }

  show(edges, marked, width) {
    this.edges = edges;
    this.marked = marked;
    this.place = layOut(this.circuit, edges, Math.max(width, 280));
    this.host.style.height = `${this.place.height}px`;
    this.focus = this.rest;
    this.most = edges.length ? Math.max(...[...edges.subarray(0, 1000)].map((e) => Math.abs(this.circuit.d[e]))) : 1;
    this.fit();
  }

  fit() { this.zoom = { k: 1, x: 0, y: 0 }; this.paint(); }
  zoomAt(x, y, factor) {
    const k = Math.min(40, Math.max(0.5, this.zoom.k * factor));
    const f = k / this.zoom.k;
    this.zoom = { k, x: x - f * (x - this.zoom.x), y: y - f * (y - this.zoom.y) };
    this.paint();
  }
  pan(dx, dy) { this.zoom.x += dx; this.zoom.y += dy; this.paint(); }
  at(i) { const p = this.place.points.get(i); return p && { x: p.x * this.zoom.k + this.zoom.x, y: p.y * this.zoom.k + this.zoom.y }; }

  /* Large where many edges are drawn, no larger than lets two neighbours stand apart. */
  radius(point) { return Math.min(7.5, 2.6 + Math.sqrt(point.degree), Math.max(1.1, 0.48 * this.place.apart * this.zoom.k)); }

  /* The lines of an edge as the four points of a curve. */
  curve(e) {
    const [a, b] = [this.at(this.circuit.source[e]), this.at(this.circuit.target[e])];
    const bend = (b.x - a.x) / 2;
    return [a.x, a.y, a.x + bend, a.y, b.x - bend, b.y, b.x, b.y];
  }

  paint() {
    cancelAnimationFrame(this.pending);
    this.pending = requestAnimationFrame(() => this.#paintNow());
  }

  #paintNow() {
    const sharp = Math.min(window.devicePixelRatio || 1, 2);
    for (const canvas of [this.under, this.over]) {
      const [w, h] = [Math.round(this.place.width * sharp), Math.round(this.place.height * sharp)];
      if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
      canvas.getContext("2d").setTransform(sharp, 0, 0, sharp, 0, 0);
    }
    this.colours = { supporting: look("--edge-down"), suppressing: look("--edge-up"), ink: look("--ink"), soft: look("--soft"), page: look("--page"), mark: look("--mark") };
    const pen = this.under.getContext("2d");
    pen.clearRect(0, 0, this.place.width, this.place.height);
    this.#slices(pen, 0);
    this.paintOver();
  }

  /* The strongest first, so that a large circuit is seen at once and filled in, and at the end once more on top. */
  #slices(pen, from) {
    const to = Math.min(from + SLICE, this.edges.length);
    pen.globalAlpha = Math.min(0.62, Math.max(0.05, 14 / Math.sqrt(this.edges.length)));
    this.strokes(pen, this.edges.subarray(from, to));
    if (to < this.edges.length) this.pending = requestAnimationFrame(() => this.#slices(pen, to));
    else {
      if (from) this.strokes(pen, this.edges.subarray(0, SLICE));
      this.host.dataset.drawn = String(this.edges.length);
    }
  }

  /* Blue and whole where the target falls, orange and dashed where it rises; wide where |d| is large. Of very many
     edges plain lines: nobody would see more, and all would wait. */
  strokes(pen, edges, wider = 0) {
    const plain = edges.length > 0 && this.edges.length > CURVED && !wider;
    const pens = new Map();
    for (const e of edges) {
      const step = plain ? 0 : Math.min(4, Math.floor(5 * Math.abs(this.circuit.d[e]) / this.most));
      const kind = `${this.circuit.sign(e)} ${step}`;
      if (!pens.has(kind)) pens.set(kind, []);
      pens.get(kind).push(e);
    }
    for (const [kind, own] of [...pens].sort((a, b) => a[0].slice(-1) - b[0].slice(-1))) {
      const [sign, step] = kind.split(" ");
      pen.strokeStyle = this.colours[sign];
      pen.lineWidth = plain ? 1 : 0.7 + 0.7 * Number(step) + wider;
      pen.setLineDash(sign === "suppressing" && !plain ? [6, 3] : []);
      for (const e of own.reverse()) {  // weak ones first; each by itself: a stroke of many lines takes longer than its lines
        const [x0, y0, x1, y1, x2, y2, x3, y3] = this.curve(e);
        pen.beginPath();
        pen.moveTo(x0, y0);
        if (plain) pen.lineTo(x3, y3); else pen.bezierCurveTo(x1, y1, x2, y2, x3, y3);
        pen.stroke();
      }
    }
    pen.setLineDash([]);
  }

  /* What is near the focus: its own edges and the latents at their ends. */
  near() {
    if (!this.focus) return null;
    const { circuit, focus } = this;
    const edges = focus.edges ? Uint32Array.from(focus.edges) : this.edges.filter((e) => circuit.source[e] === focus.node || circuit.target[e] === focus.node);
    const nodes = new Set(focus.node === undefined ? [] : [focus.node]);
    for (const e of edges) { nodes.add(circuit.source[e]); nodes.add(circuit.target[e]); }
    return { edges, nodes };
  }

  paintOver() {
    const pen = this.over.getContext("2d");
    pen.clearRect(0, 0, this.place.width, this.place.height);
    const near = this.near();
    this.host.classList.toggle("focus", near !== null);
    if (near) this.strokes(pen, near.edges.filter((e) => this.place.points.has(this.circuit.source[e]) && this.place.points.has(this.circuit.target[e])), 0.8);
    this.#axis(pen);
    for (const [i, point] of this.place.points) this.#dot(pen, i, point, near);
    this.#names(pen, near);
  }

  #axis(pen) {
    pen.fillStyle = this.colours.soft;
    pen.font = "12px system-ui, sans-serif";
    let free = -Infinity;
    this.place.axis.forEach(({ layer, x }, c) => {
      const at = x * this.zoom.k + this.zoom.x;
      if (at < free) return;
      const text = c ? String(layer) : `layer ${layer}`;
      pen.textAlign = c ? "center" : "left";
      pen.fillText(text, c ? at : Math.max(at - 8, 2), 13);
      free = at + (c ? 24 : 56);
    });
    pen.textAlign = "left";
  }

  #dot(pen, i, point, near) {
    const { x, y } = this.at(i);
    if (x < -20 || y < -20 || x > this.place.width + 20 || y > this.place.height + 20) return;
    pen.globalAlpha = near && !near.nodes.has(i) ? 0.2 : 1;
    pen.beginPath();
    pen.arc(x, y, this.radius(point), 0, 7);
    pen.fillStyle = this.circuit.isSource(i) ? this.colours.ink : this.colours.page;
    pen.fill();
    const marked = this.marked.get(i);
    const cursor = this.focus?.node === i && this.focus.cursor;
    pen.strokeStyle = cursor || marked ? this.colours.mark : this.colours.ink;
    pen.lineWidth = cursor ? 4 : marked ? 3 : 1.2;
    pen.stroke();
    pen.globalAlpha = 1;
  }

  /* Names of those looked at, marked or strongest, as long as no two touch. */
  #names(pen, near) {
    const { points, gap, right } = this.place;
    const rank = ([i, p]) => (near?.nodes.has(i) ? 2e6 : 0) + (this.marked.has(i) ? 1e6 : 0) + p.strength;
    const taken = [];
    pen.font = "11.5px system-ui, sans-serif";
    for (const [i, point] of [...points].sort((a, b) => rank(b) - rank(a))) {
      if (taken.length >= NAMED * Math.max(1, this.zoom.k) || (near && !near.nodes.has(i))) break;
      const { x, y } = this.at(i);
      const room = point.last ? right - 12 : gap * this.zoom.k - 18;
      if (room < 40 || x < -right || x > this.place.width || y < 20 || y > this.place.height) continue;
      const text = cut(this.circuit.name(i), Math.floor(room / 6.2));
      if (taken.some((box) => Math.abs(box.y - y) < 13 && Math.abs(box.x - x) < Math.max(box.w, 6.2 * text.length))) continue;
      taken.push({ x, y, w: 6.2 * text.length });
      pen.fillStyle = this.colours.page;
      pen.globalAlpha = 0.75;
      pen.fillRect(x + 8, y - 6, 6 * text.length, 12);
      pen.globalAlpha = 1;
      pen.fillStyle = this.colours.ink;
      pen.fillText(text, x + 9, y + 4);
    }
  }

  /* The latent or edge under a place of the picture. */
  hit(x, y) {
    let best = { far: 12 };
    for (const i of this.place.points.keys()) { const p = this.at(i); const far = Math.hypot(p.x - x, p.y - y); if (far < best.far) best = { far, node: i }; }
    if (best.node !== undefined) return best;
    best = { far: 6 };
    for (const e of this.edges.subarray(0, CURVED)) {
      const [x0, y0, x1, y1, x2, y2, x3, y3] = this.curve(e);
      if (x < Math.min(x0, x3) || x > Math.max(x0, x3)) continue;
      for (let t = 0.04; t < 1; t += 0.04) {
        const s = 1 - t;
        const [a, b, c, f] = this.edges.length > CURVED ? [s, 0, 0, t] : [s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t];
        const far = Math.hypot(a * x0 + b * x1 + c * x2 + f * x3 - x, a * y0 + b * y1 + c * y2 + f * y3 - y);
        if (far < best.far) best = { far, edge: e };
      }
    }
    return best.edge === undefined ? null : best;
  }
}
