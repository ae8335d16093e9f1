// All machines at a glance, the most urgent first.

import { at, get } from "./api.js";
import { gauge, spark } from "./chart.js";
import { badge, empty, h, put, title } from "./dom.js";
import { listen, soon } from "./stream.js";
import { now, stamp } from "./time.js";
import { now_of, score, sentence, state, summary } from "./words.js";

const HOURS = 6, POINTS = 90;

export async function show(main) {
  title("Machines");
  const machines = new Map(), past = new Map(), places = new Map();
  const line = h("p", { class: "small", role: "status" }), cards = h("ul", { class: "cards" });
  put(main, h("div", { class: "title" }, h("h1", {}, "Machines")), line, cards);

  const draw = () => {
    const order = [...machines.values()].sort((a, b) => state(a).rank - state(b).rank || a.name.localeCompare(b.name));
    const text = order.length ? summary(order) : "";
    if (line.textContent !== text) line.textContent = text;
    if (!order.length) put(cards, h("li", {}, empty("No machine is watched yet. Fit one with ", h("code", {}, "nearfar fit NORMALS -o pump3"), " and start ", h("code", {}, "nearfar serve pump3"), ".")));
    const items = order.map((machine) => {
      const item = places.get(machine.id) || h("li", {});
      places.set(machine.id, item);
      const focused = item.contains(document.activeElement);
      put(item, card(machine, past.get(machine.id) || []));
      if (focused) item.firstChild.focus();
      return item;
    });
    if (order.length && items.some((item, i) => cards.children[i] !== item)) {
      const focused = document.activeElement;
      put(cards, items);
      if (cards.contains(focused)) focused.focus();
    }
  };
  const load = async () => {
    const found = (await get("/v1/machines")).machines;
    machines.clear();
    for (const machine of found) machines.set(machine.id, machine);
    draw();
    await Promise.all(found.map(async (machine) => past.set(machine.id, (await get(`${at("machines", machine.id, "scores")}?hours=${HOURS}&points=${POINTS}`)).scores)));
    draw();
  };
  await load();
  const redraw = soon(draw);
  listen({
    state: (machine) => { machines.set(machine.id, machine); redraw(); },
    score: (scored) => {
      const machine = machines.get(scored.machine);
      if (machine) machines.set(machine.id, { ...machine, score: scored, last_heard: scored.t1, threshold: scored.threshold });
      const scores = past.get(scored.machine);
      if (!scores) return;
      scores.push(scored);
      while (scores[0].t0 < now() - HOURS * 3600 && scores.length > 2) scores.shift();
      redraw();
    },
    resync: () => load().catch(() => {}),
  });
}

function card(machine, scores) {
  const said = state(machine), current = now_of(machine);
  const heard = machine.last_heard ? ["Heard ", stamp(machine.last_heard, { absolute: false })] : "Not heard since the start";
  return h("a", { class: `card ${said.kind}`, href: `/machine/${encodeURIComponent(machine.id)}` },
    h("header", {}, h("h2", {}, machine.name, machine.site && h("span", { class: "site" }, machine.site)), badge(said)),
    h("div", { class: "now" }, h("b", {}, score(current)), h("span", { class: "small" }, current === null && machine.score ? "cannot be judged" : `alarm above ${score(machine.threshold)}`)),
    gauge(current, machine.threshold),
    spark(scores, machine.threshold),
    machine.health.map((trouble) => h("p", { class: "say" }, sentence(trouble))),
    h("p", { class: "last" }, heard, machine.health.length ? "" : machine.last_heard ? " · microphones fine" : ""));
}
