/* Mouse, finger and keyboard on the picture. */

import { announce, fixed, make, short } from "./dom.js";

/* What the picture lets one do: `open` what is chosen, `pin` a latent. */
export function handle(view, { open, pin }) {
  const { over, host, circuit } = view;
  const tip = host.querySelector(".tip");
  const fingers = new Map();
  let moved = 0;

  function look(what, event = null) {
    view.focus = !what ? view.rest : (what.node !== undefined ? { node: what.node, cursor: what.cursor } : { edges: [what.edge], edge: what.edge });
    view.paintOver();
    tip.hidden = !what || !event;
    over.style.cursor = what ? "pointer" : "grab";
    if (tip.hidden) return;
    tip.replaceChildren(...(what.node !== undefined ? aboutNode(circuit, what.node) : aboutEdge(circuit, what.edge)));
    tip.style.left = `${Math.max(0, Math.min(event.offsetX + 16, host.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${event.offsetY + 18}px`;
  }

  over.addEventListener("pointerdown", (event) => { fingers.set(event.pointerId, event); moved = 0; over.setPointerCapture(event.pointerId); });
  over.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) { look(view.hit(event.offsetX, event.offsetY), event); return; }
    if (fingers.size === 2) {
      const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
      const apart = (finger) => Math.hypot(finger.offsetX - other.offsetX, finger.offsetY - other.offsetY);
      view.zoomAt((event.offsetX + other.offsetX) / 2, (event.offsetY + other.offsetY) / 2, apart(event) / Math.max(apart(before), 1));
    } else view.pan(event.offsetX - before.offsetX, event.pointerType === "touch" ? 0 : event.offsetY - before.offsetY);
    moved += Math.abs(event.offsetX - before.offsetX) + Math.abs(event.offsetY - before.offsetY);
    fingers.set(event.pointerId, event);
  });
  const lift = (event) => fingers.delete(event.pointerId);
  over.addEventListener("pointercancel", lift);
  over.addEventListener("pointerup", (event) => {
    lift(event);
    const what = moved < 6 ? view.hit(event.offsetX, event.offsetY) : null;
    if (what) open(what);
  });
  over.addEventListener("pointerleave", () => look(null));
  over.addEventListener("wheel", (event) => {
    if (!(event.ctrlKey || event.metaKey || document.activeElement === over)) return;
    event.preventDefault();
    view.zoomAt(event.offsetX, event.offsetY, Math.exp(-event.deltaY / 400));
  }, { passive: false });
  over.addEventListener("keydown", (event) => { if (press(event.key)) event.preventDefault(); });
  over.addEventListener("blur", () => { look(null); });

  function press(key) {
    const { width, height } = view.place;
    if (key === "+" || key === "=") { view.zoomAt(width / 2, height / 2, 1.3); return true; }
    if (key === "-") { view.zoomAt(width / 2, height / 2, 1 / 1.3); return true; }
    if (key === "0") { view.fit(); return true; }
    if (key === "Escape") { look(null); return true; }
    if (key === "Enter") { if (view.focus?.node !== undefined || view.focus?.edge !== undefined) open(view.focus); return true; }
    if (key === "p" && view.focus?.node !== undefined) { pin(view.focus.node); return true; }
    if (key === "." || key === ",") { alongEdges(key === "." ? 1 : -1); return true; }
    const step = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[key];
    if (!step) return false;
    stepTo(step);
    return true;
  }

  /* The nearest latent in that direction; the strongest where none is looked at. */
  function stepTo([right, down]) {
    const { points } = view.place;
    if (!points.size) return;
    const at = view.focus?.node ?? view.from;
    const here = points.get(at);
    let best = null;
    if (!here) best = { i: [...points].sort((a, b) => b[1].strength - a[1].strength)[0][0] };
    else for (const [i, point] of points) {
      const [dx, dy] = [point.x - here.x, point.y - here.y];
      const ahead = right ? dx * right : dx === 0 ? dy * down : 0;
      const cost = ahead * 3 + Math.abs(right ? dy : 0);
      if (ahead > 0 && (!best || cost < best.cost)) best = { i, cost };
    }
    if (best) visit({ node: best.i, cursor: true });
  }

  /* The edges of the latent looked at, strongest first. */
  function alongEdges(step) {
    const i = view.focus?.node ?? view.from;
    const own = i === undefined ? [] : [...view.edges].filter((e) => circuit.source[e] === i || circuit.target[e] === i);
    if (!own.length) return;
    const now = own.indexOf(view.focus?.edge);
    visit({ edge: own[now < 0 ? (step > 0 ? 0 : own.length - 1) : (now + step + own.length) % own.length] });
  }

  function visit(what) {
    if (what.node !== undefined) view.from = what.node;
    look(what);
    announce(what.node !== undefined
      ? `${circuit.place(what.node)} ${circuit.name(what.node)}, ${view.place.points.get(what.node).degree} edges shown`
      : edgeInWords(circuit, what.edge));
  }
}

export function edgeInWords(circuit, e) {
  const [a, b] = [circuit.source[e], circuit.target[e]];
  return `${circuit.place(a)} ${circuit.name(a)} → ${circuit.place(b)} ${circuit.name(b)}, ${circuit.sign(e)}, d ${fixed(circuit.d[e])}`;
}

function aboutNode(circuit, i) {
  return [make("b", {}, circuit.name(i)), make("p", {}, `${circuit.place(i)}${circuit.isSource(i) ? ", silenced" : ""}, ${circuit.degree(i)} edges`),
    make("p", { class: "genes" }, circuit.genes(i).slice(0, 8).join(", ") || "no gene fired often enough")];
}

function aboutEdge(circuit, e) {
  const [a, b] = [circuit.source[e], circuit.target[e]];
  return [make("b", {}, `${circuit.name(a)} → ${circuit.name(b)}`), make("p", {}, `${circuit.place(a)} → ${circuit.place(b)}, ${circuit.sign(e)}, ${circuit.grade(e)}`),
    make("p", {}, `d ${fixed(circuit.d[e])}, effect ${fixed(circuit.of("e.effect_sd", e))} SD, change ${short(circuit.of("e.mean_delta", e))}`)];
}
