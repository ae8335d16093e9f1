// One event: its facts, where its sound differs, similar normal recordings to compare it with, and the verdict.

import { actionButton, answerAction, auditList } from "./actions.js";
import { apiPath, get, post } from "./api.js";
import { at, badge, breadcrumbs, h, note, panel, replaceContent, setTitle } from "./dom.js";
import { eventName } from "./notes.js";
import { player, switchPlayer } from "./player.js";
import { subscribe } from "./stream.js";
import { agoText, durationText, timeElement } from "./time.js";
import { asSentence, eventWord, isHeard, limitText, scoreUnit, triggerText, verdictLabel } from "./words.js";

const AUDIO_GONE =
  "The sound of this event has been deleted: the space for sounds is limited, and the oldest go first.";
const FINE_HINT =
  "“It was fine” adds this sound to the normal recordings, so that similar sounds raise no alarm. You can take that back.";
const ODD_HINT =
  "Another session (noise, load, season), or the beginning of a fault? “Fine” adds its unusual windows to the normal recordings, so that the session is known. You can take that back.";
const TEXT = {
  file: "Recording: ",
  label: "What it is called in lists and on the trend (may stay empty)",
  stands: "It still stands",
  nothing: (ago) => `: no sound has been heard since, ${ago}.`,
  changes: "What has changed",
  changeCaption: "Red is louder than usual, blue is quieter; the outlined part is what differs.",
  compare: "Compare by ear",
  event: "This sound",
  start: "Play, and switch between the two",
  both: "Switch to the other",
  alike: "Both are played as loud as each other; the switch stays at the same place.",
  kind: "Kind of fault (may stay empty)",
  said: "Note (may stay empty)",
  faults: ["bearing", "belt", "leak", "loose part", "imbalance", "rubbing", "cavitation", "electrical"],
  previous: "Earlier event",
  next: "Later event",
  after: "Recorded. The set-point page shows which of the confirmed faults it hears: ",
  setPoint: "Normals and set-point",
};
const PLACES = ["most similar", "second", "third"];

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
  const around = h("nav", { class: "row small", "aria-label": "Other events" });
  const remark = remarkFields();
  const name = eventName(event, () => reload());
  let machine = null;
  replaceContent(
    main,
    breadcrumbs(["Machines", "/"], [event.name, `/machine/${encodeURIComponent(event.machine)}`], [kind]),
    head,
    h("div", { class: "pair" }, facts, answers),
    h(
      "section",
      { class: "panel" },
      h("label", { for: "label" }, TEXT.label),
      h("div", { class: "row" }, name.field, name.button),
    ),
    evidence,
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
    const undone = "Taken back: the normal recordings are as they were before.";
    replaceContent(
      audit,
      event.audit.length ? panel("audit", "What was done", auditList(event.audit, reload, undone)) : null,
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
    replaceContent(evidence, h("section", { class: "panel" }, note(AUDIO_GONE)));
    return;
  }
  replaceContent(evidence, h("section", { class: "panel" }, note("Analysing the sound")));
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
  const link = (each, text) =>
    each && h("a", { class: "button", href: `/event/${each.id}` }, `${text}: ${eventWord(each)}`);
  return [link(before, TEXT.previous), link(newer.at(-1), TEXT.next)];
}

// The kind of a fault and a note, kept while the page is drawn anew.
function remarkFields() {
  const kind = h("input", { type: "text", id: "fault", maxlength: 60, list: "faults", autocomplete: "off" });
  const said = h("input", { type: "text", id: "said", maxlength: 500, autocomplete: "off" });
  const element = h(
    "div",
    { class: "fields" },
    h("div", {}, h("label", { for: "fault" }, TEXT.kind), kind),
    h("div", {}, h("label", { for: "said" }, TEXT.said), said),
    h(
      "datalist",
      { id: "faults" },
      TEXT.faults.map((value) => h("option", { value })),
    ),
  );
  return { element, read: () => ({ fault: kind.value, said: said.value }) };
}

function eventFacts(event, machine) {
  const silent =
    machine?.last_heard && Date.now() / 1000 - machine.last_heard > 120
      ? TEXT.nothing(agoText(machine.last_heard))
      : ".";
  const duration = event.ended ? `It lasted ${durationText(event.ended - event.started)}.` : `${TEXT.stands}${silent}`;
  const interrupted = event.interrupted && "The server was stopped during this event, so its true end is not known.";
  if (!isHeard(event)) {
    return [
      h("p", { class: "lead" }, asSentence(event.text)),
      h(
        "p",
        {},
        "Since ",
        timeElement(event.started),
        `. ${duration} Until it is over, do not rely on the scores of this machine.`,
      ),
      interrupted && h("p", { class: "small" }, interrupted),
    ];
  }
  return [
    h(
      "div",
      { class: "now" },
      h("b", {}, event.kind === "alarm" ? "Sounds wrong" : "Unusual"),
      h("span", { class: "small" }, `${scoreUnit(event.peak_score)} at its highest; ${limitText(event)}`),
    ),
    event.file && h("p", {}, TEXT.file, h("b", {}, event.file)),
    h("p", {}, "Began ", timeElement(event.started), `. ${duration}`),
    event.kind === "unusual" && h("p", { class: "odd-text" }, asSentence(event.text)),
    event.on_top_of &&
      h("p", {}, asSentence(event.text), " ", h("a", { href: `/event/${event.on_top_of}` }, "See that event.")),
    h("p", { class: "small" }, triggerText(event), interrupted),
  ];
}

function answerButtons(event, remark, after) {
  const shelve = async (name) => {
    await post(apiPath("machines", event.machine, "shelve"), { hours: 8, who: name });
    return `${event.name} is shelved for 8 h: no alarm is raised, everything is recorded.`;
  };
  const acknowledged = async (name) => {
    await post(apiPath("events", event.id, "acknowledge"), { who: name });
    return "Acknowledged: others see that somebody looks after it.";
  };
  const [heard, odd] = [isHeard(event), event.kind === "unusual"];
  const fine = answerAction(event, "fine", undefined, remark.read);
  const fault = answerAction(event, "fault", "Recorded as a real fault.", remark.read);
  const answered = heard && event.verdict === "fault";
  return [
    h("h2", { id: "answer" }, "What was it?"),
    h(
      "p",
      { class: "small" },
      odd ? ODD_HINT : heard ? FINE_HINT : "Acknowledge it when somebody looks after the microphone.",
    ),
    heard && !event.verdict && remark.element,
    answered &&
      h(
        "p",
        { class: "small" },
        TEXT.after,
        h("a", { href: `/model/${encodeURIComponent(event.machine)}` }, TEXT.setPoint),
      ),
    h(
      "div",
      { class: "row actions" },
      heard && !event.verdict && actionButton(odd ? "Not fine" : "Real fault", fault, { main: true, after }),
      heard &&
        event.verdict !== "fine" &&
        actionButton(odd ? "Fine, add to the normals" : "It was fine", fine, { after, disabled: !event.has_audio }),
      !event.acknowledged && actionButton("Acknowledge", acknowledged, { main: !heard, after }),
      actionButton("Shelve 8 h", shelve, { after }),
    ),
  ];
}

async function explanation(event) {
  const found = await get(apiPath("events", event.id, "explanation"));
  const source = (gain, ...parts) => `${apiPath("events", event.id, ...parts)}?gain_db=${gain}`;
  const groups = [
    {
      label: "This event",
      sounds: found.channels.map((name) => ({ name, src: source(found.gain_db, "audio", name) })),
    },
    ...found.nearest.map((normal, i) => ({
      label: normal.name,
      hint: PLACES[i],
      sounds: normal.playable
        ? found.channels.map((name) => ({ name, src: source(normal.gain_db, "nearest", i + 1, name) }))
        : [],
    })),
  ];
  const twin = found.nearest.findIndex((normal) => normal.playable);
  const comparison =
    twin >= 0 &&
    switchPlayer(
      { label: TEXT.event, src: source(found.gain_db, "audio", "near") },
      { label: found.nearest[twin].name, src: source(found.nearest[twin].gain_db, "nearest", twin + 1, "near") },
      TEXT,
    );
  const caption = found.clear
    ? "Above: the event, with the difference outlined. Below: a normal recording. Louder is brighter."
    : "Above: the event. Below: a normal recording. Louder is brighter.";
  const figure = pictureOf(event, "spectrogram.png", `Pitch over time. ${found.sentence}`, caption, 750);
  const change = pictureOf(
    event,
    "change.png",
    `Change against usual over time and pitch. ${found.what}`,
    TEXT.changeCaption,
    750,
  );
  return [
    panel(
      "difference",
      "What differs",
      h("p", { class: "lead" }, found.what),
      found.lines.map((line) => h("p", {}, line)),
    ),
    panel("changes", TEXT.changes, h("div", { class: "large" }, change)),
    panel("compare", TEXT.compare, comparison, h("p", { class: "small" }, TEXT.alike)),
    h(
      "div",
      { class: "pair" },
      panel("look", "Look", figure),
      panel(
        "listen",
        "Listen",
        player(groups),
        h("p", { class: "small" }, "The next sound starts at the same position in time."),
        h(
          "p",
          {},
          h("a", { href: apiPath("events", event.id, "audio", "both.flac"), download: "" }, "The sound as a file"),
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
  const waiting = note("Drawing the picture");
  const figure = h("figure", {}, waiting, h("picture", {}, dark, image), h("figcaption", {}, caption));
  image.addEventListener("load", () => waiting.remove());
  image.addEventListener("error", async () => {
    const answer = await get(path).catch((error) => error);
    replaceContent(figure, note(answer.message || "The picture cannot be drawn."));
  });
  return figure;
}
