// Builds elements. Text is always inserted as text, never as HTML: names of files and machines may contain anything.

import { t } from "./texts.js";

// The path below which a proxy serves these pages, "" without one.
const ROOT = document.documentElement.dataset.root || "";

// An address of this server, such as "/health", as the browser has to ask for it.
export const at = (path) => (path.startsWith("/") ? ROOT + path : path);

// The path of this page on the server.
export const here = () => window.location.pathname.slice(ROOT.length) || "/";

const SVG = "http://www.w3.org/2000/svg";

// h("p", { class: "small" }, "text", child) makes an HTML element, s(...) an SVG element. Empty children are left out.
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "href" || name === "src") element.setAttribute(name, at(value));
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Replaces the children of an element.
export function replaceContent(parent, ...children) {
  parent.replaceChildren(...children.flat(9).filter((child) => child));
}

// The reports of a day and of a week, of the plant or of one machine, as pages and as workbooks.
export function reportLinks(machine = "") {
  const only = machine && `&machine=${encodeURIComponent(machine)}`;
  const link = (text, query) => h("a", { class: "button", href: `/v1/report?${query}${only}` }, text);
  return h(
    "p",
    { class: "row small" },
    t("dom.reports"),
    " ",
    link(t("dom.day"), "span=day"),
    link(t("dom.week"), "span=week"),
    link(t("dom.day_excel"), "span=day&format=xlsx"),
    link(t("dom.week_excel"), "span=week&format=xlsx"),
  );
}

const ICONS = {
  fine: () => s("circle", { cx: 8, cy: 8, r: 6, fill: "currentColor" }),
  wait: () =>
    s("circle", {
      cx: 8,
      cy: 8,
      r: 5,
      fill: "none",
      stroke: "currentColor",
      "stroke-width": 2,
      "stroke-dasharray": "3 2.2",
    }),
  odd: () => s("path", { d: "M8 .800 15.200 8 8 15.200 .800 8Z", fill: "currentColor" }),
  alarm: () => s("path", { d: "M8 1.500 15.500 14.500H.5Z", fill: "currentColor" }),
  seen: () =>
    s("path", {
      d: "M8 2.800 14 13.500H2Z",
      fill: "none",
      stroke: "currentColor",
      "stroke-width": 2,
      "stroke-linejoin": "round",
    }),
  cross: () =>
    s("path", { d: "M3 3 13 13M13 3 3 13", stroke: "currentColor", "stroke-width": 2.6, "stroke-linecap": "round" }),
  shelf: () => s("path", { d: "M4.500 2v12M11.500 2v12", stroke: "currentColor", "stroke-width": 3.2 }),
  play: () => s("path", { d: "M3.500 1.500v13L14 8Z", fill: "currentColor" }),
  stop: () => s("rect", { x: 3, y: 3, width: 10, height: 10, rx: 1, fill: "currentColor" }),
};

export function icon(name) {
  return s("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" }, ICONS[name]());
}

export function badge({ word, sign, kind }) {
  return h("span", { class: `badge ${kind}` }, icon(sign), word);
}

// A line of text that stands for missing content.
export function note(text, ...more) {
  return h("p", { class: "empty" }, text, ...more);
}

// A section with a heading.
export function panel(id, heading, ...children) {
  return h("section", { class: "panel", "aria-labelledby": id }, h("h2", { id }, heading), ...children);
}

// A table; `heads` are texts, or [text, class]. On a narrow screen each row is folded into a block.
export function table(heads, rows) {
  const cells = heads.map((head) => [head].flat()).map(([text, kind]) => h("th", { scope: "col", class: kind }, text));
  return h(
    "div",
    { class: "wide" },
    h("table", { class: "folds" }, h("thead", {}, h("tr", {}, cells)), h("tbody", {}, rows)),
  );
}

// A list of [term, description] pairs.
export function facts(rows) {
  return h(
    "dl",
    {},
    rows.map(([term, description]) => [h("dt", {}, term), h("dd", {}, description)]),
  );
}

let hideTimer = 0;

// Shows a text at the bottom of the page for a while; screen readers read it out.
export function announce(text) {
  const message = document.getElementById("message");
  message.textContent = text;
  clearTimeout(hideTimer);
  hideTimer = setTimeout(() => {
    message.textContent = "";
  }, 8000);
}

export function breadcrumbs(...steps) {
  const items = steps.map(([name, href]) =>
    href ? h("a", { href }, name) : h("span", { "aria-current": "page" }, name),
  );
  return h(
    "nav",
    { class: "crumbs", "aria-label": t("dom.where") },
    items.flatMap((item, i) => (i ? [" / ", item] : [item])),
  );
}

export function setTitle(text) {
  document.title = `${text} - nearfar`;
}
