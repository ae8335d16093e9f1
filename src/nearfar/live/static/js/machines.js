// All machines, the most urgent first.

import { apiPath, get } from "./api.js";
import { gauge, sparkline } from "./chart.js";
import { badge, h, replaceContent, reportLinks, setTitle } from "./dom.js";
import { newMachine } from "./new.js";
import { subscribe, throttle } from "./stream.js";
import { now, timeElement } from "./time.js";
import { afterWindow, asSentence, scoreText, stateLabel, summaryText } from "./words.js";

const HOURS = 6;
const POINTS = 90;

export async function show(main) {
  setTitle("Machines");
  const machines = new Map(); // by id, and so are the next two
  const past = new Map(); // scores of the last hours
  const items = new Map(); // list items
  const line = h("p", { class: "small", role: "status" });
  const cards = h("ul", { class: "cards" });
  const adding = newMachine(() => load().catch(() => {}));
  const reports = reportLinks();
  replaceContent(main, h("div", { class: "title" }, h("h1", {}, "Machines")), line, cards, reports, adding.element);

  const draw = () => {
    const order = [...machines.values()].sort(
      (a, b) => stateLabel(a).rank - stateLabel(b).rank || a.name.localeCompare(b.name),
    );
    reports.hidden = !order.length;
    adding.first(!order.length);
    const text = order.length ? summaryText(order) : "";
    if (line.textContent !== text) line.textContent = text;
    cards.hidden = !order.length;
    const shown = order.map((machine) => {
      const item = items.get(machine.id) || h("li", {});
      items.set(machine.id, item);
      const focused = item.contains(document.activeElement);
      replaceContent(item, machineCard(machine, past.get(machine.id) || []));
      if (focused) item.firstChild.focus();
      return item;
    });
    if (order.length && shown.some((item, i) => cards.children[i] !== item)) {
      const focused = document.activeElement;
      replaceContent(cards, shown);
      if (cards.contains(focused)) focused.focus();
    }
  };
  const load = async () => {
    const found = (await get("/v1/machines")).machines;
    machines.clear();
    for (const machine of found) machines.set(machine.id, machine);
    draw();
    const scoresOf = async (machine) => {
      const found = await get(`${apiPath("machines", machine.id, "scores")}?hours=${HOURS}&points=${POINTS}`);
      past.set(machine.id, found.scores);
    };
    await Promise.all(found.map(scoresOf));
    draw();
  };
  await Promise.all([load(), adding.load()]);
  const redraw = throttle(draw);
  subscribe({
    state: (machine) => {
      machines.set(machine.id, machine);
      redraw();
    },
    score: (scored) => {
      const machine = machines.get(scored.machine);
      if (machine)
        machines.set(machine.id, afterWindow(machine, scored));
      const scores = past.get(scored.machine);
      if (!scores) return;
      scores.push(scored);
      while (scores[0].t0 < now() - HOURS * 3600 && scores.length > 2) scores.shift();
      redraw();
    },
    resync: () => load().catch(() => {}),
  });
}

function machineCard(machine, scores) {
  const label = stateLabel(machine);
  const value = machine.score;
  const last = machine.last_heard
    ? ["Last sound ", timeElement(machine.last_heard, { absolute: false })]
    : "No sound since the start";
  const site = machine.site && h("span", { class: "site" }, machine.site);
  const limit = value === null && machine.window ? "cannot be judged" : `alarm above ${scoreText(machine.threshold)}`;
  return h(
    "a",
    { class: `card ${label.kind}`, href: `/machine/${encodeURIComponent(machine.id)}` },
    h("header", {}, h("h2", {}, machine.name, site), badge(label)),
    h("div", { class: "now" }, h("b", {}, scoreText(value)), h("span", { class: "small" }, limit)),
    gauge(value, machine.threshold, machine.unusual_threshold),
    sparkline(scores, machine.threshold),
    machine.unusual_stands && h("p", { class: "odd-text" }, asSentence(machine.unusual_text)),
    machine.health.map((text) => h("p", { class: "warning" }, asSentence(text))),
    h("p", { class: "last" }, last, machine.last_heard && !machine.health.length ? " · microphones fine" : ""),
  );
}
