// All machines, the most urgent first.

import { apiPath, get, post, savedName } from "./api.js";
import { gauge, sparkline } from "./chart.js";
import { announce, badge, h, panel, replaceContent, reportLinks, setTitle } from "./dom.js";
import { uploadPath } from "./drop.js";
import { waitingItem } from "./setup.js";
import { subscribe, throttle } from "./stream.js";
import { LOCALE, parts, t } from "./texts.js";
import { now, timeElement } from "./time.js";
import { afterWindow, asSentence, resultText, scoreText, stateLabel, summaryText } from "./words.js";

const HOURS = 6;
const POINTS = 90;
const MANY = 8; // machines, from which on they can be searched

export async function show(main) {
  setTitle(t("machines.title"));
  const machines = new Map(); // by id, and so are the next two
  const past = new Map(); // scores of the last hours
  const items = new Map(); // list items
  const line = h("p", { class: "small", role: "status" });
  const cards = h("ul", { class: "cards" });
  const going = h("div", {});
  const missing = h("p", { class: "empty", role: "status", hidden: true }, t("machines.nothing"));
  const find = h("input", { type: "search", id: "find", autocomplete: "off", oninput: () => draw() });
  const search = h("div", { class: "find", hidden: true }, h("label", { for: "find" }, t("machines.find")), find);
  const add = h("a", { class: "button main", href: "/setup" }, t("machines.add"));
  const empty = h(
    "section",
    { class: "panel", hidden: true },
    h("p", { class: "lead" }, t("machines.none")),
    h("p", {}, t("machines.first")),
  );
  const reports = reportLinks();
  const title = h("div", { class: "title" }, h("h1", {}, t("machines.title")), h("div", { class: "end" }, add));
  replaceContent(main, title, line, search, missing, empty, cards, going, reports);

  const draw = () => {
    const order = [...machines.values()].sort(
      (a, b) => stateLabel(a).rank - stateLabel(b).rank || a.name.localeCompare(b.name, LOCALE),
    );
    reports.hidden = !order.length;
    empty.hidden = Boolean(order.length);
    search.hidden = order.length < MANY;
    const wanted = find.value.trim().toLowerCase();
    const sites = new Set(order.map((machine) => machine.site)).size;
    const isWanted = (machine) => `${machine.name} ${machine.site} ${machine.id}`.toLowerCase().includes(wanted);
    const text = order.length ? summaryText(order) : "";
    if (line.textContent !== text) line.textContent = text;
    cards.hidden = !order.length;
    const shown = order
      .filter((machine) => search.hidden || isWanted(machine))
      .map((machine) => {
        const item = items.get(machine.id) || droppable(machine.id);
        items.set(machine.id, item);
        const focused = item.contains(document.activeElement);
        replaceContent(item, machineCard(machine, past.get(machine.id) || [], sites));
        if (focused) item.firstChild.focus();
        return item;
      });
    missing.hidden = !order.length || shown.length > 0;
    if (cards.children.length !== shown.length || shown.some((item, i) => cards.children[i] !== item)) {
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
  const loadGoing = async () => {
    const found = await get("/v1/collections");
    add.hidden = !found.possible;
    const waiting = found.collections.filter((each) => !each.live);
    replaceContent(
      going,
      waiting.length > 0 && panel("going", t("machines.going"), h("ul", { class: "plain" }, waiting.map(waitingItem))),
    );
  };
  await Promise.all([load(), loadGoing()]);
  const redraw = throttle(draw);
  subscribe({
    state: (machine) => {
      machines.set(machine.id, machine);
      redraw();
    },
    score: (scored) => {
      const machine = machines.get(scored.machine);
      if (machine) machines.set(machine.id, afterWindow(machine, scored));
      const scores = past.get(scored.machine);
      if (!scores) return;
      scores.push(scored);
      while (scores[0].t0 < now() - HOURS * 3600 && scores.length > 2) scores.shift();
      redraw();
    },
    job: () => loadGoing().catch(() => {}),
    resync: () => load().catch(() => {}),
  });
}

// A list item of a machine that scores the recordings that are dropped on it.
function droppable(id) {
  const item = h("li", {});
  item.addEventListener("dragover", (event) => event.preventDefault());
  item.addEventListener("drop", async (event) => {
    event.preventDefault();
    for (const file of event.dataTransfer.files) {
      const path = uploadPath(id, "score", file.name, `&who=${encodeURIComponent(savedName())}`);
      const answer = await post(path, file).catch((error) => error);
      announce(answer instanceof Error ? asSentence(answer.message) : `${file.name}: ${resultText(answer)}`);
    }
  });
  return item;
}

function machineCard(machine, scores, sites) {
  const label = stateLabel(machine);
  const value = machine.score;
  const last = machine.last_heard
    ? parts("machines.last", { time: timeElement(machine.last_heard, { absolute: false }) })
    : t("machines.no_sound");
  const site = sites > 1 && h("span", { class: "site" }, machine.site);
  const limits = { value: scoreText(value), limit: scoreText(machine.threshold) };
  const limit = value !== null && t("machines.limit", limits);
  const fine = label.kind === "fine" && !machine.health.length;
  return h(
    "a",
    { class: `card ${label.kind}`, href: `/machine/${encodeURIComponent(machine.id)}` },
    h("header", {}, h("h2", {}, machine.name, site)),
    h("div", { class: "now" }, badge(label), h("span", { class: "small" }, limit)),
    gauge(value, machine.threshold, machine.unusual_threshold),
    sparkline(scores, machine.threshold),
    machine.unusual_stands && h("p", { class: "odd-text" }, asSentence(machine.unusual_text)),
    machine.health.map((text) => h("p", { class: "warning" }, asSentence(text))),
    h("p", { class: "last" }, last, fine && ` · ${t("machines.microphones")}`),
  );
}
