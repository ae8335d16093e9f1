// One machine: its trend with set-point and alarms, its events, and shelving.

import { actionButton, answerAction } from "./actions.js";
import { apiPath, get, post, remove, savedName } from "./api.js";
import { gauge, legend, onWidth, trendChart } from "./chart.js";
import { at, badge, breadcrumbs, h, icon, note, panel, replaceContent, reportLinks, setTitle, table } from "./dom.js";
import { dropZone, uploadPath } from "./drop.js";
import { levelMeters } from "./levels.js";
import { maintenancePanel } from "./maintenance.js";
import { allowed, openMicrophone, stayOpen } from "./microphone.js";
import { notesOf, notesPanel } from "./notes.js";
import { player } from "./player.js";
import { fileTime, saved } from "./setup.js";
import { subscribe, throttle } from "./stream.js";
import { parts, t } from "./texts.js";
import { clockText, durationText, now, timeElement } from "./time.js";
import {
  afterWindow,
  asSentence,
  eventWord,
  isHeard,
  levelText,
  rarityText,
  recordingLabel,
  resultLabel,
  scoreText,
  stateLabel,
  verdictLabel,
} from "./words.js";

const RANGES = [
  ["machine.hour", 1],
  ["machine.day", 24],
  ["machine.week", 168],
  ["machine.quarter", 2160],
];
const [SHORTEST_H, LONGEST_H] = [1 / 12, 2160];
const POINTS = 700;
const LISTENED = 10; // unusual sounds that wait for an answer are shown, newest first
const PLAYED_DBFS = -26; // the level at which they are played
const FEWEST_DAYS = 8; // before a trend over days is shown

export async function show(main, id) {
  let machine = await get(apiPath("machines", id));
  let hours = 24;
  let end = null; // of what is shown; null: now
  setTitle(machine.name);
  const head = h("div", { class: "title" });
  const current = h("section", { class: "panel" });
  const figure = h("figure", {});
  const drift = h("p", { class: "small" });
  const events = h("div", {});
  const actions = h("div", { class: "row actions" });
  const unusual = h("div", {});
  const heard = h("div", {});
  const notes = notesPanel(id, async () => {
    await draw();
    await heardList(machine, heard, notes);
  });
  const send = h(
    "section",
    { class: "panel" },
    sending(
      () => machine,
      () => drawHeard().catch(() => {}),
    ),
  );
  const choose = (value, until = null) => {
    hours = Math.min(LONGEST_H, Math.max(SHORTEST_H, value));
    end = until !== null && until < now() - 1 ? until : null;
    RANGES.forEach(([, each], i) => ranges.children[i].setAttribute("aria-pressed", String(each === value)));
    return draw();
  };
  const rangeButton = ([key, value]) =>
    h(
      "button",
      {
        type: "button",
        "aria-pressed": String(value === hours),
        onclick: () => choose(value).catch(() => {}),
      },
      t(key),
    );
  const move = ({ by = 0, zoom = 1 }) => {
    const until = end ?? now();
    const middle = until - hours * 1800;
    return choose(
      hours * zoom,
      zoom === 1 ? until + by * hours * 3600 : Math.min(now(), middle + hours * zoom * 1800),
    ).catch(() => {});
  };
  const moves = h(
    "div",
    { class: "ranges", role: "group", "aria-label": t("machine.move") },
    [
      [t("machine.earlier"), { by: -0.5 }],
      [t("machine.later"), { by: 0.5 }],
      [t("machine.zoom_in"), { zoom: 0.5 }],
      [t("machine.zoom_out"), { zoom: 2 }],
    ].map(([text, how]) => h("button", { type: "button", onclick: () => move(how) }, text)),
  );
  const shown = { class: "ranges", role: "group", "aria-label": t("machine.range") };
  const ranges = h("div", shown, RANGES.map(rangeButton));
  replaceContent(
    main,
    breadcrumbs([t("machines.title"), "/"], [machine.name]),
    head,
    current,
    send,
    h(
      "section",
      { class: "panel", "aria-labelledby": "trend" },
      h(
        "div",
        { class: "title" },
        h("h2", { id: "trend" }, t("machine.trend")),
        h("div", { class: "end" }, moves, ranges),
      ),
      figure,
      legend(),
      drift,
    ),
    unusual,
    panel("heard", t("machine.heard"), heard),
    panel("events", t("machine.events"), events),
    notes.element,
    panel(
      "shelving",
      t("machine.shelve_title"),
      h("p", { class: "small" }, t("machine.shelve_how")),
      actions,
    ),
    maintenancePanel(id),
    reportLinks(id),
    h(
      "details",
      {},
      h("summary", {}, t("machine.remove")),
      h("p", {}, t("machine.remove_how")),
      h("p", {}, actionButton(t("machine.remove"), removed)),
    ),
  );

  async function removed(name) {
    await remove(`${apiPath("machines", id)}?who=${encodeURIComponent(name)}`);
    window.location.assign(at("/"));
    return "";
  }
  const reloadHeader = async () => {
    machine = await get(apiPath("machines", id));
    drawHeader();
  };
  const shelve = (hours) => {
    const work = async (name) => {
      await post(apiPath("machines", id, "shelve"), { hours, who: name });
      return t("machine.shelved", { count: hours });
    };
    return actionButton(t("machine.shelve", { count: hours }), work, { after: reloadHeader });
  };
  const unshelve = async (name) => {
    await remove(`${apiPath("machines", id, "shelve")}?who=${encodeURIComponent(name)}`);
    return t("machine.unshelved");
  };
  const drawHeader = () => {
    const model = h("a", { class: "button", href: `/model/${encodeURIComponent(id)}` }, t("machine.model"));
    replaceContent(head, h("h1", {}, machine.name), badge(stateLabel(machine)), h("div", { class: "end" }, model));
    replaceContent(current, currentScore(machine));
    const shelved = machine.state === "shelved";
    if (actions.contains(document.activeElement) && actions.dataset.shelved === String(shelved)) return;
    const end = actionButton(t("machine.unshelve"), unshelve, { after: reloadHeader });
    replaceContent(actions, shelved ? end : [1, 8, 24].map(shelve));
    actions.dataset.shelved = String(shelved);
  };
  const draw = async () => {
    const until = end ?? now();
    const since = until - hours * 3600;
    const [past, found, written] = await Promise.all([
      get(`${apiPath("machines", id, "scores")}?since=${since}&until=${until + 60}&points=${POINTS}`),
      get(`/v1/events?machine=${encodeURIComponent(id)}&since=${since}&until=${until + 60}&limit=200`),
      notesOf(id),
    ]);
    notes.draw(written);
    const focused = figure.contains(document.activeElement);
    const range = RANGES.find(([, value]) => value === hours)?.[0];
    replaceContent(
      figure,
      past.scores.length
        ? trendChart({
            ...past,
            events: found.events,
            notes: written.filter((each) => !each.event && each.at >= since && each.at < until),
            since,
            until,
            threshold: machine.threshold,
            unusual_threshold: machine.unusual_threshold,
            clip_s: machine.clip_seconds,
            name: machine.name,
            width: figure.clientWidth,
            onMove: move,
          })
        : machine.source === "none" && !machine.last_heard
          ? note(t("machine.unheard"))
          : note(
              end || !range ? t("machine.empty_shown") : t("machine.empty_last", { range: t(range) }),
              " ",
              h("a", { href: "/health" }, t("page.health")),
            ),
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
  const drawHeard = async () => {
    if (!heard.contains(document.activeElement)) await heardList(machine, heard, notes);
  };
  drawUnusual().catch(() => {});
  drawHeard().catch(() => {});
  drawHeader();
  const first = await draw();
  const age = first ? now() - first.t0 : Infinity; // a day would show a sound that is new as one stroke
  if (age < 3000) await choose(age < 240 ? SHORTEST_H : 1);
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
    if (end === null && !figure.contains(document.activeElement)) draw().catch(() => {});
    drawHeard().catch(() => {});
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
  const limits = { unusual: scoreText(machine.unusual_threshold), alarm: scoreText(machine.threshold) };
  const levels = last && { near: levelText(last.level_near_dbfs), far: levelText(last.level_far_dbfs) };
  const warnings = machine.health.length || !unjudged ? machine.health : [last.problem];
  return [
    h(
      "div",
      { class: "now" },
      h("b", {}, unjudged ? "" : scoreText(value)),
      h(
        "span",
        { class: "small" },
        unjudged ? t("machine.unjudged") : value === null ? t("machine.not_yet") : t("machine.deviations", limits),
      ),
    ),
    gauge(value, machine.threshold, machine.unusual_threshold),
    machine.event_id &&
      h(
        "p",
        { class: "row" },
        h("a", { class: "button main", href: `/event/${machine.event_id}` }, icon("alarm"), t("machine.look")),
      ),
    value !== null && h("p", {}, rarityText(last.p)),
    machine.unusual_stands && h("p", { class: "odd-text" }, asSentence(machine.unusual_text)),
    machine.trend && h("p", { class: "warning" }, asSentence(machine.trend.text)),
    warnings.map((text) => h("p", { class: "warning" }, asSentence(text))),
    h(
      "p",
      { class: "small" },
      machine.last_heard
        ? parts("machines.last", { time: timeElement(machine.last_heard) })
        : t("machines.no_sound"),
      ". ",
      last && t("machine.levels", levels),
    ),
  ];
}

const clockSpan = (s) => `${Math.floor(s / 60)}:${String(Math.round(s % 60)).padStart(2, "0")}`;

// Where recordings are dropped, and the microphone of this device for a machine that has no source.
function sending(machine, after) {
  const results = h("ul", { class: "plain" });
  const shown = h("div", { role: "status" }, results);
  const tell = (file, answer) => {
    const why = [answer.problem, ...answer.warnings].filter(Boolean).map(asSentence).join(" ");
    const said = answer.anomalous === null ? file : `${file}: ${scoreText(answer.score)}`;
    results.prepend(
      h("li", {}, h("div", { class: "row" }, badge(resultLabel(answer)), h("span", {}, said)), why && h("p", {}, why)),
    );
    while (results.children.length > 20) results.lastChild.remove();
  };
  const { id } = machine();
  const path = (file) => uploadPath(id, "score", file.name, `&who=${encodeURIComponent(savedName())}`);
  const sent = (file, answer) => tell(file.name, answer);
  const zone = dropZone({ label: t("machine.drop"), path, sent, done: after });
  if (machine().source !== "none") return [zone, shown];
  const state = h("p", { class: "small", role: "status" }, allowed() ? t("machine.listen_how") : t("machine.insecure"));
  const meters = levelMeters();
  let microphone = null;
  let leave = () => {};
  const button = h("button", { type: "button", disabled: !allowed() }, icon("play"), t("machine.listen"));
  const stop = () => {
    microphone?.close();
    microphone = null;
    leave();
    meters.show([]);
    replaceContent(button, icon("play"), t("machine.listen"));
    state.textContent = t("machine.listen_how");
  };
  const start = async () => {
    microphone = await openMicrophone({ ...saved(id), onLevels: meters.show, onEnd: stop });
    leave = stayOpen();
    replaceContent(button, icon("stop"), t("machine.stop"));
    state.textContent = t("machine.listening", { seconds: machine().clip_seconds });
    const sends = new Set();
    while (microphone) {
      const name = `${fileTime(Date.now())}.wav`;
      const file = await microphone.record(machine().clip_seconds).catch(() => null);
      if (!file || sends.size > 3) continue; // the server is slower than the sound: the oldest wait, this one is lost
      const sent = post(uploadPath(id, "score", name), file)
        .then(
          (answer) => tell(name, answer),
          (error) => {
            state.textContent = asSentence(error.message);
          },
        )
        .finally(() => sends.delete(sent));
      sends.add(sent);
      sent.then(after);
    }
  };
  button.addEventListener("click", () =>
    microphone
      ? stop()
      : start().catch((error) => {
          stop();
          state.textContent = asSentence(error.message);
        }),
  );
  return [h("p", { class: "row" }, button), meters.element, state, zone, shown];
}

const some = (r) =>
  t("machine.some", { unusual: r.unusual, count: r.judged, expected: Math.round(r.expected) });
const spans = (r) =>
  r.spans
    .map((s) => t("machine.span", { from: clockSpan(s.start_s), to: clockSpan(s.end_s), score: scoreText(s.score) }))
    .join(", ");

// The recordings that a machine has heard, newest first, with their sound and worst spans.
async function heardList(machine, into, notes) {
  const channels = machine.window?.level_far_dbfs === null ? ["near"] : ["near", "far"];
  const source = (r, name) =>
    `${apiPath("machines", machine.id, "heard", name)}?t0=${r.t0}&at=${Math.max(0, r.worst_t0 - r.t0)}`;
  const item = (r) => ({
    label: [
      h("b", {}, r.file || clockText(r.t0)),
      called(r) && ` ${called(r)}`,
      h("span", { class: "small" }, r.file && [" ", timeElement(r.t0)], ` · ${scoreText(r.score)}`),
      r.windows > 1 && h("span", { class: "small" }, ` · ${some(r)}`),
      r.windows > 1 &&
        r.spans.length > 0 &&
        h("span", { class: "small spans" }, t("machine.worst", { spans: spans(r) })),
      r.problem && h("span", { class: "small" }, ` · ${r.problem}`),
    ],
    name: r.file || clockText(r.t0),
    sounds: r.playable ? channels.map((name) => ({ name, src: source(r, name) })) : [],
    missing: "",
    answers: [
      badge(recordingLabel(r.status)),
      h("button", { type: "button", onclick: () => notes.begin(r.t0) }, t("machine.note")),
    ],
  });
  const names = await notesOf(machine.id);
  const called = (r) => names.find((each) => Math.abs(each.at - r.t0) < 1)?.text;
  const order = into.dataset.order || "newest";
  const found = await get(`${apiPath("machines", machine.id, "heard")}?limit=20&order=${order}`);
  const choose = (wanted) => {
    into.dataset.order = wanted;
    heardList(machine, into, notes).catch(() => {});
  };
  const orders = h(
    "div",
    { class: "ranges", role: "group", "aria-label": t("machine.order") },
    [
      ["newest", "machine.newest_first"],
      ["worst", "machine.worst_first"],
    ].map(([value, key]) =>
      h(
        "button",
        { type: "button", "aria-pressed": String(value === order), onclick: () => choose(value) },
        t(key),
      ),
    ),
  );
  const all = found.recordings;
  const draw = (next) => {
    const button = h("button", { type: "button", onclick: () => more(next).catch(() => {}) }, t("machine.more"));
    replaceContent(
      into,
      all.length > 1 && h("p", {}, orders),
      machine.source !== "none" && !all.some((r) => r.file) && h("p", { class: "small" }, t("machine.samples")),
      all.length ? player(all.map(item)) : note(t("machine.heard_none")),
      next && h("p", { class: "row" }, button),
    );
  };
  const more = async (next) => {
    const older = await get(next);
    all.push(...older.recordings);
    draw(older.next);
  };
  draw(found.next);
}

// The sounds of times with many unusual windows that nobody has answered yet, each with its two answers.
function unusualSounds(machine, events, after) {
  const levels = machine.window || {};
  const channels = levels.level_far_dbfs === null ? ["near"] : ["near", "far"];
  const gain = Math.max(0, Math.min(40, Math.round(PLAYED_DBFS - (levels.level_near_dbfs ?? PLAYED_DBFS))));
  const link = (event) => h("a", { href: `/event/${event.id}` }, t("machine.event", { id: `${event.id}` }));
  const sound = (event) => ({
    label: [link(event), ", ", timeElement(event.started)],
    name: t("machine.event_name", { id: `${event.id}` }),
    hint: t("machine.score", { score: scoreText(event.peak_score) }),
    sounds: channels.map((name) => ({
      name,
      src: `${apiPath("events", event.id, "audio", name)}?gain_db=${gain}&whole=true`,
    })),
    answers: [
      actionButton(t("machine.fine"), answerAction(event, "fine"), { after }),
      actionButton(t("machine.not_fine"), answerAction(event, "fault", t("machine.fault_recorded")), { after }),
    ],
  });
  return panel(
    "unusual",
    t("machine.question"),
    h("p", {}, t("machine.question_how")),
    player(events.map(sound)),
  );
}

// Events, newest first; with `machine`, each with the name of its machine.
export function eventTable(events, { machine = false } = {}) {
  if (!events.length) return note(t("machine.none"));
  const row = (event) => {
    const health = !isHeard(event);
    const word = event.label ? `${eventWord(event)}: ${event.label}` : eventWord(event);
    const link = h("a", { href: `/event/${event.id}` }, word);
    const lasted = event.ended ? durationText(event.ended - event.started) : t("machine.not_over");
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, link, machine && h("span", { class: "small" }, ` ${event.name}`)),
      h("td", {}, timeElement(event.started)),
      h("td", { "data-is": t("machine.lasted_short") }, lasted),
      health
        ? h("td", { "data-is": "" }, asSentence(event.text))
        : h("td", { "data-is": t("machine.highest_short") }, scoreText(event.peak_score)),
      h("td", {}, badge(verdictLabel(event))),
    );
  };
  const heads = ["machine.what", "machine.began", "machine.lasted", "machine.highest", "machine.answer"];
  return table(heads.map((key) => t(key)), events.map(row));
}
