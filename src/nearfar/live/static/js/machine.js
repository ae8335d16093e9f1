// One machine: its trend with set-point and alarms, its events, and shelving.

import { actionButton, answerAction } from "./actions.js";
import { apiPath, get, post, remove } from "./api.js";
import { gauge, legend, onWidth, trendChart } from "./chart.js";
import { badge, breadcrumbs, h, icon, note, panel, replaceContent, reportLinks, setTitle, table } from "./dom.js";
import { player } from "./player.js";
import { subscribe, throttle } from "./stream.js";
import { durationText, now, timeElement } from "./time.js";
import {
  afterWindow,
  asSentence,
  eventWord,
  isHeard,
  levelText,
  rarityText,
  scoreText,
  stateLabel,
  verdictLabel,
} from "./words.js";

const RANGES = [
  ["1 h", 1],
  ["24 h", 24],
  ["7 d", 168],
  ["30 d", 720],
];
const POINTS = 700;
const LISTENED = 10; // unusual sounds that wait for an answer are shown, newest first
const PLAYED_DBFS = -26; // the level at which they are played
const FEWEST_DAYS = 8; // before a trend over days is shown

export async function show(main, id) {
  let machine = await get(apiPath("machines", id));
  let hours = 24;
  setTitle(machine.name);
  const head = h("div", { class: "title" });
  const current = h("section", { class: "panel" });
  const figure = h("figure", {});
  const drift = h("p", { class: "small" });
  const events = h("div", {});
  const actions = h("div", { class: "row actions" });
  const unusual = h("div", {});
  const choose = (value) => {
    hours = value;
    RANGES.forEach(([, each], i) => ranges.children[i].setAttribute("aria-pressed", String(each === value)));
    return draw();
  };
  const rangeButton = ([text, value]) =>
    h(
      "button",
      {
        type: "button",
        "aria-pressed": String(value === hours),
        onclick: () => choose(value).catch(() => {}),
      },
      text,
    );
  const ranges = h("div", { class: "ranges", role: "group", "aria-label": "Time shown" }, RANGES.map(rangeButton));
  replaceContent(
    main,
    breadcrumbs(["Machines", "/"], [machine.name]),
    head,
    current,
    h(
      "section",
      { class: "panel", "aria-labelledby": "trend" },
      h("div", { class: "title" }, h("h2", { id: "trend" }, "Trend"), h("div", { class: "end" }, ranges)),
      figure,
      legend(),
      drift,
    ),
    unusual,
    panel("events", "Alarms, unusual sounds and microphone problems", events),
    panel(
      "shelving",
      "Shelve",
      h(
        "p",
        { class: "small" },
        "During repair or cleaning: no alarm is raised for this time, everything is still recorded.",
      ),
      actions,
    ),
    reportLinks(id),
  );

  const reloadHeader = async () => {
    machine = await get(apiPath("machines", id));
    drawHeader();
  };
  const shelve = (hours) => {
    const work = async (name) => {
      await post(apiPath("machines", id, "shelve"), { hours, who: name });
      return `Shelved for ${hours} h.`;
    };
    return actionButton(`Shelve ${hours} h`, work, { after: reloadHeader });
  };
  const unshelve = async (name) => {
    await remove(`${apiPath("machines", id, "shelve")}?who=${encodeURIComponent(name)}`);
    return "Alarms are raised again.";
  };
  const drawHeader = () => {
    const model = h("a", { class: "button", href: `/model/${encodeURIComponent(id)}` }, "Model and set-point");
    replaceContent(head, h("h1", {}, machine.name), badge(stateLabel(machine)), h("div", { class: "end" }, model));
    replaceContent(current, currentScore(machine));
    const shelved = machine.state === "shelved";
    if (actions.contains(document.activeElement) && actions.dataset.shelved === String(shelved)) return;
    const end = actionButton("End shelving", unshelve, { after: reloadHeader });
    replaceContent(actions, shelved ? end : [1, 8, 24].map(shelve));
    actions.dataset.shelved = String(shelved);
  };
  const draw = async () => {
    const until = now();
    const since = until - hours * 3600;
    const [past, found] = await Promise.all([
      get(`${apiPath("machines", id, "scores")}?since=${since}&until=${until + 60}&points=${POINTS}`),
      get(`/v1/events?machine=${encodeURIComponent(id)}&since=${since}&limit=200`),
    ]);
    const focused = figure.contains(document.activeElement);
    const range = RANGES.find(([, value]) => value === hours)[0];
    replaceContent(
      figure,
      past.scores.length
        ? trendChart({
            ...past,
            events: found.events,
            since,
            until,
            threshold: machine.threshold,
            unusual_threshold: machine.unusual_threshold,
            clip_s: machine.clip_seconds,
            name: machine.name,
            width: figure.clientWidth,
          })
        : note(`No sound arrived in the last ${range}. Is the source running? `, h("a", { href: "/health" }, "Health")),
    );
    if (focused) figure.querySelector(".chart")?.focus();
    replaceContent(events, eventTable(found.events));
    return past.scores[0];
  };
  const drawUnusual = async () => {
    const found = await get(`/v1/events?machine=${encodeURIComponent(id)}&kind=unusual&limit=100`);
    const waiting = found.events.filter((event) => !event.verdict && event.has_audio).slice(0, LISTENED);
    if (unusual.contains(document.activeElement) && waiting.length) return;
    replaceContent(unusual, waiting.length ? unusualSounds(machine, waiting, drawUnusual) : null);
  };
  drawUnusual().catch(() => {});
  drawHeader();
  const first = await draw();
  if (first && first.t0 > now() - 3000) await choose(1); // the first sound is new: a day would show it as one stroke
  onWidth(figure, () => draw().catch(() => {}));
  get(apiPath("machines", id, "drift")).then(
    (found) => {
      if (found.days.length < FEWEST_DAYS) return;
      drift.className = found.creeping ? "warning" : "small";
      replaceContent(drift, found.text);
    },
    () => {},
  );
  const drawSoon = throttle(() => {
    if (!figure.contains(document.activeElement)) draw().catch(() => {});
  }, 5000);
  const drawHeaderSoon = throttle(drawHeader);
  subscribe({
    state: (message) => {
      if (message.id !== id) return;
      machine = message;
      drawHeaderSoon();
    },
    score: (message) => {
      if (message.machine !== id) return;
      machine = afterWindow(machine, message);
      drawHeaderSoon();
      drawSoon();
    },
    event: (message) => {
      if (message.machine !== id) return;
      draw().catch(() => {});
      drawUnusual().catch(() => {});
    },
    resync: async () => {
      await reloadHeader();
      await draw();
      await drawUnusual();
    },
  });
}

function currentScore(machine) {
  const last = machine.window;
  const value = machine.score;
  const unjudged = last && value === null;
  const warnings = machine.health.length || !unjudged ? machine.health : [last.problem];
  return [
    h(
      "div",
      { class: "now" },
      h("b", {}, scoreText(value)),
      h(
        "span",
        { class: "small" },
        unjudged
          ? "the last window could not be judged"
          : `standard deviations above its normal recordings; unusual above ${scoreText(machine.unusual_threshold)}, alarm above ${scoreText(machine.threshold)}`,
      ),
    ),
    gauge(value, machine.threshold, machine.unusual_threshold),
    machine.event_id &&
      h(
        "p",
        { class: "row" },
        h("a", { class: "button", href: `/event/${machine.event_id}` }, icon("alarm"), "Look at the alarm"),
      ),
    value !== null && h("p", {}, rarityText(last.p)),
    machine.unusual_stands && h("p", { class: "odd-text" }, asSentence(machine.unusual_text)),
    machine.trend && h("p", { class: "warning" }, asSentence(machine.trend.text)),
    warnings.map((text) => h("p", { class: "warning" }, asSentence(text))),
    h(
      "p",
      { class: "small" },
      machine.last_heard ? ["Last sound ", timeElement(machine.last_heard)] : "No sound since the start",
      last ? `. Near ${levelText(last.level_near_dbfs)}, far ${levelText(last.level_far_dbfs)}.` : ".",
    ),
  ];
}

// The sounds of times with many unusual windows that nobody has answered yet, each with its two answers.
function unusualSounds(machine, events, after) {
  const levels = machine.window || {};
  const channels = levels.level_far_dbfs === null ? ["near"] : ["near", "far"];
  const gain = Math.max(0, Math.min(40, Math.round(PLAYED_DBFS - (levels.level_near_dbfs ?? PLAYED_DBFS))));
  const sound = (event) => ({
    label: [h("a", { href: `/event/${event.id}` }, `Event ${event.id}`), ", ", timeElement(event.started)],
    name: `event ${event.id}`,
    hint: `score ${scoreText(event.peak_score)}`,
    sounds: channels.map((name) => ({
      name,
      src: `${apiPath("events", event.id, "audio", name)}?gain_db=${gain}&whole=true`,
    })),
    answers: [
      actionButton("Fine, add to the normals", answerAction(event, "fine"), { after }),
      actionButton("Not fine", answerAction(event, "fault", "Recorded as a real fault."), { after }),
    ],
  });
  return panel(
    "unusual",
    "Unusual: is it fine?",
    h(
      "p",
      {},
      "Another session (noise, load, season), or the beginning of a fault: listen. What is fine becomes a normal recording, and the session is known from then on. You can take that back.",
    ),
    player(events.map(sound)),
  );
}

// Events, newest first; with `machine`, each with the name of its machine.
export function eventTable(events, { machine = false } = {}) {
  if (!events.length) return note("There were none in this period.");
  const row = (event) => {
    const health = !isHeard(event);
    const link = h("a", { href: `/event/${event.id}` }, eventWord(event));
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, link, machine && h("span", { class: "small" }, ` ${event.name}`)),
      h("td", {}, timeElement(event.started)),
      h("td", { "data-is": "lasted" }, event.ended ? durationText(event.ended - event.started) : "not over"),
      h("td", { "data-is": health ? "" : "highest" }, health ? asSentence(event.text) : scoreText(event.peak_score)),
      h("td", {}, badge(verdictLabel(event))),
    );
  };
  return table(["What", "Began", "Lasted", "Highest, or why", "Answer"], events.map(row));
}
