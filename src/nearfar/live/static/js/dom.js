// Elements from code. Text is only ever text: names of files and machines come from outside and may hold anything.

const SVG = "http://www.w3.org/2000/svg";

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
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function put(parent, ...children) {
  parent.replaceChildren(...children.flat(9).filter((child) => child));
}

const ICONS = {
  fine: () => s("circle", { cx: 8, cy: 8, r: 6, fill: "currentColor" }),
  wait: () => s("circle", { cx: 8, cy: 8, r: 5, fill: "none", stroke: "currentColor", "stroke-width": 2, "stroke-dasharray": "3 2.2" }),
  alarm: () => s("path", { d: "M8 1.500 15.500 14.500H.5Z", fill: "currentColor" }),
  seen: () => s("path", { d: "M8 2.800 14 13.500H2Z", fill: "none", stroke: "currentColor", "stroke-width": 2, "stroke-linejoin": "round" }),
  cross: () => s("path", { d: "M3 3 13 13M13 3 3 13", stroke: "currentColor", "stroke-width": 2.6, "stroke-linecap": "round" }),
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

export function empty(text, ...more) {
  return h("p", { class: "empty" }, text, ...more);
}

let hide = 0;

export function say(text) {
  const place = document.getElementById("said");
  place.textContent = text;
  clearTimeout(hide);
  hide = setTimeout(() => { place.textContent = ""; }, 8000);
}

export function crumbs(...steps) {
  const items = steps.map(([name, href]) => (href ? h("a", { href }, name) : h("span", { "aria-current": "page" }, name)));
  return h("nav", { class: "crumbs", "aria-label": "Where you are" }, items.flatMap((item, i) => (i ? [" / ", item] : [item])));
}

export function title(text) {
  document.title = `${text} - nearfar`;
}
