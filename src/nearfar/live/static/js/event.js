// One event: its facts, where its sound differs, similar normal recordings to compare it with, and the verdict.

import { actionButton, answerAction, auditList } from "./actions.js";
import { apiPath, get, post } from "./api.js";
import { at, badge, breadcrumbs, h, note, panel, replaceContent, setTitle } from "./dom.js";
import { eventName } from "./notes.js";
import { player, switchPlayer } from "./player.js";
import { subscribe } from "./stream.js";
import { list, parts, t } from "./texts.js";
import { agoText, durationText, timeElement } from "./time.js";
import { asSentence, eventWord, isHeard, limitText, scoreText, verdictLabel } from "./words.js";

const SHELVED_H = 8;

export async function show(main, id) {
  let event = await get(apiPath("events", id));
  const kind = eventWord(event);
  const heading = `${kind}: ${event.name}`;
  setTitle(heading);
  const head = h("div", { class: "title" });
  const facts = h("section", { class: "panel" });
  const answers = h("section", { class: "panel", "aria-labelledby": "answer" });
  const evidence = h("div", {});
  const audit = h("div", {});
  const around = h("nav", { class: "row small", "aria-label": t("event.others") });
  const remark = remarkFields();
  const name = eventName(event, () => reload());
  let machine = null;
  replaceContent(
    main,
    breadcrumbs([t("machines.title"), "/"], [event.name, `/machine/${encodeURIComponent(event.machine)}`], [kind]),
    head,
    h("div", { class: "pair" }, facts, answers),
    evidence,
    h(
      "section",
      { class: "panel" },
      h("label", { for: "label" }, t("event.label")),
      h("div", { class: "row" }, name.field, name.button),
    ),
    audit,
    around,
  );

  const reload = async () => {
    event = await get(apiPath("events", id));
    draw();
  };
  const draw = () => {
    replaceContent(head, h("h1", {}, heading), event.label && h("b", {}, event.label), badge(verdictLabel(event)));
    replaceContent(facts, eventFacts(event, machine));
    const focused = answers.contains(document.activeElement) ? document.activeElement.textContent : "";
    replaceContent(answers, answerButtons(event, remark, reload));
    if (focused) {
      const buttons = [...answers.querySelectorAll("button")];
      (buttons.find((button) => button.textContent === focused) || buttons[0])?.focus();
    }
    replaceContent(
      audit,
      event.audit.length ? panel("audit", t("event.audit"), auditList(event.audit, reload, t("event.undone"))) : null,
    );
  };
  draw();
  get(apiPath("machines", event.machine)).then(
    (found) => {
      machine = found;
      draw();
    },
    () => {},
  );
  neighbours(event).then(
    (links) => replaceContent(around, links),
    () => {},
  );
  const reloadIf = (condition) => condition && reload().catch(() => {});
  subscribe({
    event: (message) => reloadIf(String(message.id) === id),
    audit: (message) => reloadIf(message.machine === event.machine),
    resync: reload,
  });
  if (!isHeard(event)) return;
  if (!event.has_audio) {
    replaceContent(evidence, h("section", { class: "panel" }, note(t("event.gone"))));
    return;
  }
  replaceContent(evidence, h("section", { class: "panel" }, note(t("event.analysing"))));
  explanation(event).then(
    (found) => replaceContent(evidence, found),
    (error) =>
      replaceContent(evidence, h("section", { class: "panel trouble", role: "alert" }, h("p", {}, error.message))),
  );
}

async function neighbours(event) {
  const of = `/v1/events?machine=${encodeURIComponent(event.machine)}`;
  const before = (await get(`${of}&before_id=${event.id}&limit=1`)).events[0];
  const newer = (await get(`${of}&since=${event.started}&limit=1000`)).events.filter((each) => each.id > event.id);
  const link = (each, key) =>
    each && h("a", { class: "button", href: `/event/${each.id}` }, t(key, { kind: eventWord(each) }));
  return [link(before, "event.previous"), link(newer.at(-1), "event.next")];
}

// The kind of a fault and a note, kept while the page is drawn anew.
function remarkFields() {
  const kind = h("input", { type: "text", id: "fault", maxlength: 60, list: "faults", autocomplete: "off" });
  const said = h("input", { type: "text", id: "said", maxlength: 500, autocomplete: "off" });
  const element = h(
    "div",
    { class: "fields" },
    h("div", {}, h("label", { for: "fault" }, t("event.fault_kind")), kind),
    h("div", {}, h("label", { for: "said" }, t("event.said")), said),
    h(
      "datalist",
      { id: "faults" },
      list("event.faults").map((value) => h("option", { value })),
    ),
  );
  return { element, read: () => ({ fault: kind.value, said: said.value }) };
}

function eventFacts(event, machine) {
  const silent = machine?.last_heard && Date.now() / 1000 - machine.last_heard > 120;
  const duration = event.ended
    ? t("event.lasted", { duration: durationText(event.ended - event.started) })
    : silent
      ? t("event.stands_silent", { ago: agoText(machine.last_heard) })
      : t("event.stands");
  const began = (key) => [parts(key, { time: timeElement(event.started) }), " ", duration];
  const interrupted = event.interrupted && t("event.interrupted");
  if (!isHeard(event)) {
    return [
      h("p", { class: "lead" }, asSentence(event.text)),
      h("p", {}, began("event.since"), " ", t("event.unreliable")),
      interrupted && h("p", { class: "small" }, interrupted),
    ];
  }
  return [
    h(
      "div",
      { class: "now" },
      h("b", {}, t(event.kind === "alarm" ? "recordings.wrong" : "recordings.unusual")),
      h("span", { class: "small" }, t("event.highest", { value: scoreText(event.peak_score) }), "; ", limitText(event)),
    ),
    event.file && h("p", {}, parts("event.file", { file: h("b", {}, event.file) })),
    h("p", {}, began("event.began")),
    event.kind === "unusual" && h("p", { class: "odd-text" }, asSentence(event.text)),
    event.kind === "alarm" &&
      h(
        "p",
        {},
        asSentence(event.text),
        event.on_top_of && [" ", h("a", { href: `/event/${event.on_top_of}` }, t("event.see"))],
      ),
    interrupted && h("p", { class: "small" }, interrupted),
  ];
}

function answerButtons(event, remark, after) {
  const shelve = async (name) => {
    await post(apiPath("machines", event.machine, "shelve"), { hours: SHELVED_H, who: name });
    return t("event.shelved", { machine: event.name, count: SHELVED_H });
  };
  const acknowledged = async (name) => {
    await post(apiPath("events", event.id, "acknowledge"), { who: name });
    return t("event.acknowledged");
  };
  const [heard, odd] = [isHeard(event), event.kind === "unusual"];
  const fine = answerAction(event, "fine", undefined, remark.read);
  const fault = answerAction(event, "fault", t("machine.fault_recorded"), remark.read);
  const answered = heard && event.verdict === "fault";
  const over = event.ended && event.verdict === "fine";
  const how = `event.${over ? "was_answered" : odd ? "unusual_how" : heard ? "fine_how" : "health_how"}`;
  const setPoint = h("a", { href: `/model/${encodeURIComponent(event.machine)}` }, t("model.short"));
  const yes = t(odd ? "machine.fine" : "event.was_fine");
  const no = t(odd ? "machine.not_fine" : "event.real_fault");
  return [
    h("h2", { id: "answer" }, t("event.question")),
    h("p", { class: "small" }, t(how)),
    heard && !event.verdict && remark.element,
    answered && h("p", { class: "small" }, parts("event.after", { link: setPoint })),
    h(
      "div",
      { class: "row actions" },
      heard && !event.verdict && actionButton(no, fault, { main: true, after }),
      heard &&
        event.verdict !== "fine" &&
        actionButton(yes, fine, { after, disabled: !event.has_audio }),
      !event.acknowledged && actionButton(t("event.acknowledge"), acknowledged, { main: !heard, after }),
      !over && actionButton(t("machine.shelve", { count: SHELVED_H }), shelve, { after }),
    ),
  ];
}

async function explanation(event) {
  const found = await get(apiPath("events", event.id, "explanation"));
  const source = (gain, ...parts) => `${apiPath("events", event.id, ...parts)}?gain_db=${gain}`;
  const groups = [
    {
      label: t("event.this_event"),
      sounds: found.channels.map((name) => ({ name, src: source(found.gain_db, "audio", name) })),
    },
    ...found.nearest.map((normal, i) => ({
      label: normal.name,
      hint: list("event.places")[i],
      sounds: normal.playable
        ? found.channels.map((name) => ({ name, src: source(normal.gain_db, "nearest", i + 1, name) }))
        : [],
    })),
  ];
  const twin = found.nearest.findIndex((normal) => normal.playable);
  const comparison =
    twin >= 0 &&
    switchPlayer(
      { label: t("event.this_sound"), src: source(found.gain_db, "audio", "near") },
      { label: found.nearest[twin].name, src: source(found.nearest[twin].gain_db, "nearest", twin + 1, "near") },
    );
  const caption = t(found.clear ? "event.look_caption_clear" : "event.look_caption");
  const figure = pictureOf(event, "spectrogram.png", t("event.look_alt", { what: found.sentence }), caption, 750);
  const change = pictureOf(
    event,
    "change.png",
    t("event.changes_alt", { what: found.what }),
    t("event.changes_caption"),
    750,
  );
  return [
    panel(
      "difference",
      t("event.differs"),
      event.kind === "alarm" && !found.anomalous && !found.unusual && !found.problem && note(t("event.known_now")),
      h("p", { class: "lead" }, found.what),
      found.lines.map((line) => h("p", {}, line)),
    ),
    panel("changes", t("event.changes"), h("div", { class: "large" }, change)),
    panel("compare", t("event.compare"), comparison, h("p", { class: "small" }, t("event.alike"))),
    h(
      "div",
      { class: "pair" },
      panel("look", t("event.look"), figure),
      panel(
        "listen",
        t("event.listen"),
        player(groups),
        h("p", { class: "small" }, t("event.same_position")),
        h(
          "p",
          {},
          h("a", { href: apiPath("events", event.id, "audio", "both.flac"), download: "" }, t("event.download")),
        ),
      ),
    ),
  ];
}

// A picture of an event, light or dark, that says so while it is drawn, and if it cannot be.
function pictureOf(event, name, alt, caption, height) {
  const path = apiPath("events", event.id, name);
  const image = h("img", { src: path, alt, width: 705, height });
  const dark = h("source", { srcset: at(`${path}?dark=true`), media: "screen and (prefers-color-scheme: dark)" });
  const waiting = note(t("event.drawing"));
  const figure = h("figure", {}, waiting, h("picture", {}, dark, image), h("figcaption", {}, caption));
  image.addEventListener("load", () => waiting.remove());
  image.addEventListener("error", async () => {
    const answer = await get(path).catch((error) => error);
    replaceContent(figure, note(answer.message || t("event.not_drawn")));
  });
  return figure;
}
