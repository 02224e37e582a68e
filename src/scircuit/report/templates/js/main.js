/* The page: one screen at a time, its state in the address, and the run that is looked at. */

import { make } from "./dom.js";
import { Circuit } from "./circuit.js";
import { edgeScreen } from "./edge.js";
import { Explore } from "./explore.js";
import { featureScreen } from "./feature.js";
import { SCREENS, State } from "./state.js";

const packed = JSON.parse(document.getElementById("data").textContent);
const slugs = Object.keys(packed);
const circuits = new Map();
const state = new State();
let explore = null;

async function circuitOf(slug) {
  if (!circuits.has(slug)) circuits.set(slug, await Circuit.of(packed[slug].packed));
  return circuits.get(slug);
}

function screens() {
  document.documentElement.dataset.theme = state.get("theme");
  for (const name of SCREENS) document.getElementById(name).hidden = name !== state.screen;
  for (const link of document.querySelectorAll(".top nav a")) {
    const own = link.dataset.screen;
    link.href = state.link({}, own);
    if (own === state.screen) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  document.getElementById("run-choice").hidden = slugs.length < 2 || ["answer", "evidence"].includes(state.screen);
}

async function refresh() {
  screens();
  const slug = slugs.includes(state.get("run")) ? state.get("run") : slugs[0];
  const circuit = await circuitOf(slug);
  if (explore?.circuit !== circuit) explore = new Explore(document.getElementById("explore"), circuit, state);
  const choice = document.querySelector("#run-choice select");
  if (choice) choice.value = slug;
  if (state.screen === "explore") explore.refresh();
  if (state.screen === "feature") featureScreen(document.querySelector("#feature .live"), circuit, state);
  if (state.screen === "edge") edgeScreen(document.querySelector("#edge .live"), circuit, state);
  if (!document.documentElement.dataset.ready) performance.mark("ready");
  document.documentElement.dataset.ready = "yes";
}

/* A new screen is read from its top, or from the section that the address names. */
let seen = null;
function scroll() {
  const now = `${state.place} ${state.get("node")} ${state.get("edge")}`;
  if (now === seen) return;
  const first = seen === null;
  seen = now;
  const section = SCREENS.includes(state.place) ? null : document.getElementById(state.place);
  if (section) section.scrollIntoView(); else if (!first) window.scrollTo(0, 0);
}

document.documentElement.classList.add("js");
if (slugs.length > 1) {
  const select = make("select", { "aria-label": "Run" }, slugs.map((slug) => make("option", { value: slug }, packed[slug].name)));
  select.addEventListener("change", () => state.set({ run: select.value === slugs[0] ? "" : select.value }));
  document.getElementById("run-choice").append(make("label", {}, "Run ", select));
}
document.getElementById("theme").hidden = false;
document.getElementById("theme").addEventListener("click", () => {
  const dark = state.get("theme") ? state.get("theme") === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  state.set({ theme: dark ? "light" : "dark" });
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest("input, select, textarea")) return;
  event.preventDefault();
  if (state.screen !== "explore") state.set({}, "explore");
  setTimeout(() => document.getElementById("search")?.focus(), 60);
});
const update = () => refresh().then(scroll);
state.listeners.push(update);
let pending = 0;
window.addEventListener("resize", () => { clearTimeout(pending); pending = setTimeout(() => { if (state.screen === "explore" && explore) explore.refresh(); }, 120); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);
update();
