/* Elements, and how numbers are written. All text from the data goes through text nodes, never through markup. */

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === false || value === undefined) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}
export function make(name, attributes = {}, ...children) { return fill(document.createElement(name), attributes, children); }
export function draw(name, attributes = {}, ...children) { return fill(document.createElementNS(SVG, name), attributes, children); }
export function button(text, onclick, attributes = {}) { return make("button", { type: "button", onclick, ...attributes }, text); }

const MISSING = "–";
const known = (value) => value !== null && value !== undefined && Number.isFinite(value);
const raised = (power) => [...String(power)].map((c) => c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]).join("");
export function fixed(value, digits = 2) { return known(value) ? value.toFixed(digits).replace("-", "−") : MISSING; }
export function percent(value, digits = 0) { return known(value) ? `${(100 * value).toFixed(digits)}%`.replace("-", "−") : MISSING; }
export function count(value) { return known(value) ? value.toLocaleString("en") : MISSING; }
export function short(value) {
  if (!known(value)) return MISSING;
  if (value === 0 || (Math.abs(value) >= 0.001 && Math.abs(value) < 1e5)) return String(Number(value.toPrecision(3))).replace("-", "−");
  const [mantissa, power] = value.toExponential(1).split("e");
  return `${mantissa.replace("-", "−")}×10${raised(Number(power))}`;
}
/* A probability that travels as its power of ten. */
export function chance(power) {
  if (!known(power)) return MISSING;
  if (power <= -299) return "0";
  if (power >= -3) return String(Number((10 ** power).toPrecision(2)));
  const whole = Math.floor(power);
  return `${(10 ** (power - whole)).toFixed(1)}×10${raised(whole)}`;
}
export function cut(text, length) { return text.length > length ? `${text.slice(0, Math.max(length - 1, 1))}…` : text; }

/* Words with commands in backticks. */
function withCode(text) { return text.split("`").map((part, i) => i % 2 ? make("code", {}, part) : part); }
export function hint(text) { return make("p", { class: "hint" }, withCode(text)); }
export function panel(title, ...children) { return make("div", { class: "panel" }, make("h3", {}, title), ...children); }

/* Said to readers who do not see the picture. */
export function announce(text) { document.getElementById("said").textContent = text; }

/* A table: titles with `number` where they hold numbers, rows of texts or elements. */
export function table(titles, rows, caption = null) {
  const head = titles.map(({ title, number, help }) => make("th", { scope: "col", class: number ? "number" : null, title: help }, title));
  const body = rows.map((row) => make("tr", {}, row.map((cell, c) => make("td", { class: titles[c].number ? "number" : titles[c].look ?? null }, cell))));
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption ?? "table" }, make("table", {},
    caption === null ? null : make("caption", {}, caption), make("thead", {}, make("tr", {}, head)), make("tbody", {}, body)));
}
