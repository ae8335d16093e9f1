// One machine: its trend with set-point and alarms, its events, and putting it aside for a while.

import { act } from "./acts.js";
import { at, get, post, remove } from "./api.js";
import { gauge, legend, onWidth, trend } from "./chart.js";
import { badge, crumbs, empty, h, icon, put, title } from "./dom.js";
import { listen, soon } from "./stream.js";
import { now, span, stamp } from "./time.js";
import { level, now_of, rarity, score, sentence, state, verdict } from "./words.js";

const RANGES = [["1 h", 1], ["24 h", 24], ["7 d", 168], ["30 d", 720]], POINTS = 700, DAYS = 8;

export async function show(main, id) {
  let machine = await get(at("machines", id)), hours = 24;
  title(machine.name);
  const head = h("div", { class: "title" }), current = h("section", { class: "panel" }), figure = h("figure", {}), drift = h("p", { class: "small" }), list = h("div", {}), acts = h("div", { class: "row acts" });
  const choose = (value) => {
    hours = value;
    RANGES.forEach(([, each], i) => ranges.children[i].setAttribute("aria-pressed", String(each === value)));
    return draw();
  };
  const ranges = h("div", { class: "ranges", role: "group", "aria-label": "Time shown" }, RANGES.map(([text, value]) => h("button", {
    type: "button", "aria-pressed": String(value === hours), onclick: () => choose(value).catch(() => {}) }, text)));
  put(main, crumbs(["Machines", "/"], [machine.name]), head, current,
    h("section", { class: "panel", "aria-labelledby": "trend" }, h("div", { class: "title" }, h("h2", { id: "trend" }, "Trend"), h("div", { class: "end" }, ranges)), figure, legend(), drift),
    h("section", { class: "panel", "aria-labelledby": "events" }, h("h2", { id: "events" }, "Alarms and microphone trouble"), list),
    h("section", { class: "panel", "aria-labelledby": "aside" }, h("h2", { id: "aside" }, "Put aside"),
      h("p", { class: "small" }, "While it is being repaired or cleaned: nothing is raised until then, everything is still recorded."), acts));

  const header = () => {
    const said = state(machine);
    put(head, h("h1", {}, machine.name), badge(said), h("div", { class: "end" }, h("a", { class: "button", href: `/model/${encodeURIComponent(id)}` }, "Model and set-point")));
    put(current, present(machine));
    const reload = async () => { machine = await get(at("machines", id)); header(); };
    const shelve = (h_) => act(`Shelve ${h_} h`, async (name) => { await post(at("machines", id, "shelve"), { hours: h_, who: name }); return `Shelved for ${h_} h.`; }, { after: reload });
    const unshelve = act("Take off the shelf", async (name) => { await remove(`${at("machines", id, "shelve")}?who=${encodeURIComponent(name)}`); return "Alarms are raised again."; }, { after: reload });
    if (!acts.contains(document.activeElement) || acts.dataset.for !== String(machine.state === "shelved")) put(acts, machine.state === "shelved" ? unshelve : [1, 8, 24].map(shelve));
    acts.dataset.for = String(machine.state === "shelved");
  };
  const draw = async () => {
    const until = now(), since = until - hours * 3600;
    const [past, found] = await Promise.all([
      get(`${at("machines", id, "scores")}?since=${since}&until=${until + 60}&points=${POINTS}`),
      get(`/v1/events?machine=${encodeURIComponent(id)}&since=${since}&limit=200`)]);
    const focused = figure.contains(document.activeElement);
    put(figure, past.scores.length ? trend({ ...past, events: found.events, since, until, threshold: machine.threshold, clip_s: machine.clip_seconds, name: machine.name, width: figure.clientWidth })
      : empty(`Nothing was heard in the last ${RANGES.find(([, value]) => value === hours)[0]}. Is the source running? `, h("a", { href: "/health" }, "Health")));
    if (focused) figure.querySelector(".chart")?.focus();
    put(list, table(found.events));
    return past.scores[0];
  };
  header();
  const first = await draw();
  if (first && first.t0 > now() - 3000) await choose(1); // it has only just begun: a day would be a stroke
  onWidth(figure, () => draw().catch(() => {}));
  get(at("machines", id, "drift")).then((found) => {
    if (found.days.length < DAYS) return;
    drift.className = found.creeping ? "say" : "small";
    put(drift, found.text);
  }, () => {});
  const later = soon(() => { if (!figure.contains(document.activeElement)) draw().catch(() => {}); }, 5000), soonHeader = soon(header);
  listen({
    state: (m) => { if (m.id === id) { machine = m; soonHeader(); } },
    score: (s) => { if (s.machine === id) { machine = { ...machine, score: s, last_heard: s.t1, threshold: s.threshold }; soonHeader(); later(); } },
    event: (e) => { if (e.machine === id) draw().catch(() => {}); },
    resync: async () => { machine = await get(at("machines", id)); header(); await draw(); },
  });
}

function present(machine) {
  const last = machine.score, value = now_of(machine);
  const unjudged = last && value === null;
  return [
    h("div", { class: "now" }, h("b", {}, score(value)), h("span", { class: "small" }, unjudged ? "the last window could not be judged" : `standard deviations above its normal recordings; alarm above ${score(machine.threshold)}`)),
    gauge(value, machine.threshold),
    machine.event_id && h("p", { class: "row" }, h("a", { class: "button", href: `/event/${machine.event_id}` }, icon("alarm"), "Look at the alarm")),
    value !== null && h("p", {}, rarity(last.p)),
    (machine.health.length || !unjudged ? machine.health : [last.problem]).map((text) => h("p", { class: "say" }, sentence(text))),
    h("p", { class: "small" }, machine.last_heard ? ["Last heard ", stamp(machine.last_heard)] : "Not heard since the start",
      last ? `. Near ${level(last.level_near_dbfs)}, far ${level(last.level_far_dbfs)}.` : "."),
  ];
}

export function table(events, { machine = false } = {}) {
  if (!events.length) return empty("None in this time.");
  const rows = events.map((e) => h("tr", {},
    h("th", { scope: "row" }, h("a", { href: `/event/${e.id}` }, e.kind === "health" ? "Microphone" : "Alarm"), machine && h("span", { class: "small" }, ` ${e.name}`)),
    h("td", {}, stamp(e.started)),
    h("td", { "data-is": "lasted" }, e.ended ? span(e.ended - e.started) : "still standing"),
    h("td", { "data-is": e.kind === "health" ? "" : "highest" }, e.kind === "health" ? sentence(e.text) : score(e.peak_score)),
    h("td", {}, badge(verdict(e)))));
  return h("div", { class: "wide" }, h("table", { class: "folds" }, h("thead", {}, h("tr", {}, ["What", "Began", "Lasted", "Highest, or why", "Answer"].map((t) => h("th", { scope: "col" }, t)))), h("tbody", {}, rows)));
}
