// One event: its facts, where its sound differs, similar normal recordings to compare it with, and the verdict.

import { actionButton, answerAction, auditList } from "./actions.js";
import { apiPath, get, post } from "./api.js";
import { badge, breadcrumbs, h, note, panel, replaceContent, setTitle } from "./dom.js";
import { player } from "./player.js";
import { subscribe } from "./stream.js";
import { durationText, timeElement } from "./time.js";
import { asSentence, eventWord, isHeard, limitText, scoreText, triggerText, verdictLabel } from "./words.js";

const AUDIO_GONE =
  "The sound of this event has been deleted: the space for sounds is limited, and the oldest go first.";
const FINE_HINT =
  "“It was fine” adds this sound to the normal recordings, so that similar sounds raise no alarm. You can take that back.";
const ODD_HINT =
  "Another session (noise, load, season), or the beginning of a fault? “Fine” adds its unusual windows to the normal recordings, so that the session is known. You can take that back.";
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
  replaceContent(
    main,
    breadcrumbs(["Machines", "/"], [event.name, `/machine/${encodeURIComponent(event.machine)}`], [kind]),
    head,
    h("div", { class: "pair" }, facts, answers),
    evidence,
    audit,
  );

  const reload = async () => {
    event = await get(apiPath("events", id));
    draw();
  };
  const draw = () => {
    replaceContent(head, h("h1", {}, heading), badge(verdictLabel(event)));
    replaceContent(facts, eventFacts(event));
    const focused = answers.contains(document.activeElement) ? document.activeElement.textContent : "";
    replaceContent(answers, answerButtons(event, reload));
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

function eventFacts(event) {
  const duration = event.ended ? `It lasted ${durationText(event.ended - event.started)}.` : "It is not over.";
  const interrupted = event.interrupted && "The server was stopped during this event, so its true end is not known.";
  if (!isHeard(event)) {
    return [
      h("p", { class: "lead" }, asSentence(event.text)),
      h("p", {}, "Since ", timeElement(event.started), `. ${duration} Until it is over, do not rely on the scores of this machine.`),
      interrupted && h("p", { class: "small" }, interrupted),
    ];
  }
  return [
    h(
      "div",
      { class: "now" },
      h("b", {}, scoreText(event.peak_score)),
      h("span", { class: "small" }, `at its highest; ${limitText(event)}`),
    ),
    h("p", {}, "Began ", timeElement(event.started), `. ${duration}`),
    event.kind === "unusual" && h("p", { class: "odd-text" }, asSentence(event.text)),
    event.on_top_of && h("p", {}, asSentence(event.text), " ", h("a", { href: `/event/${event.on_top_of}` }, "See that event.")),
    h("p", { class: "small" }, triggerText(event), interrupted),
  ];
}

function answerButtons(event, after) {
  const shelve = async (name) => {
    await post(apiPath("machines", event.machine, "shelve"), { hours: 8, who: name });
    return `${event.name} is shelved for 8 h: no alarm is raised, everything is recorded.`;
  };
  const acknowledged = async (name) => {
    await post(apiPath("events", event.id, "acknowledge"), { who: name });
    return "Acknowledged: others see that somebody looks after it.";
  };
  const [heard, odd] = [isHeard(event), event.kind === "unusual"];
  const fine = answerAction(event, "fine");
  const fault = answerAction(event, "fault", "Recorded as a real fault.");
  return [
    h("h2", { id: "answer" }, "What was it?"),
    h("p", { class: "small" }, odd ? ODD_HINT : heard ? FINE_HINT : "Acknowledge it when somebody looks after the microphone."),
    h(
      "div",
      { class: "row actions" },
      !event.acknowledged && actionButton("Acknowledge", acknowledged, { main: !event.ended, after }),
      heard &&
        event.verdict !== "fine" &&
        actionButton(odd ? "Fine, add to the normals" : "It was fine", fine, { after, disabled: !event.has_audio }),
      heard && !event.verdict && actionButton(odd ? "Not fine" : "Real fault", fault, { after }),
      actionButton("Shelve 8 h", shelve, { after }),
    ),
  ];
}

async function explanation(event) {
  const found = await get(apiPath("events", event.id, "explanation"));
  const source = (...parts) => `${apiPath("events", event.id, ...parts)}?gain_db=${found.gain_db}`;
  const groups = [
    { label: "This event", sounds: found.channels.map((name) => ({ name, src: source("audio", name) })) },
    ...found.nearest.map((normal, i) => ({
      label: normal.name,
      hint: PLACES[i],
      sounds: normal.playable ? found.channels.map((name) => ({ name, src: source("nearest", i + 1, name) })) : [],
    })),
  ];
  const picture = apiPath("events", event.id, "spectrogram.png");
  const image = h("img", { src: picture, alt: `Pitch over time. ${found.sentence}`, width: 705, height: 750 });
  const dark = h("source", { srcset: `${picture}?dark=true`, media: "screen and (prefers-color-scheme: dark)" });
  const caption = found.clear
    ? "Above: the event, with the difference outlined. Below: a normal recording. Louder is brighter."
    : "Above: the event. Below: a normal recording. Louder is brighter.";
  const figure = h("figure", {}, h("picture", {}, dark, image), h("figcaption", {}, caption));
  image.addEventListener("error", async () => {
    const answer = await get(picture).catch((error) => error);
    replaceContent(figure, note(answer.message || "The picture cannot be drawn."));
  });
  const gain = `${Math.abs(found.gain_db)} dB ${found.gain_db >= 0 ? "louder" : "quieter"}`;
  return [
    panel(
      "difference",
      "What differs",
      h("p", { class: "lead" }, found.what),
      found.lines.map((line) => h("p", {}, line)),
    ),
    h(
      "div",
      { class: "pair" },
      panel("look", "Look", figure),
      panel(
        "listen",
        "Listen",
        player(groups),
        h(
          "p",
          { class: "small" },
          `All sounds are played ${gain}. The next sound starts at the same position in time.`,
        ),
        h(
          "p",
          {},
          h("a", { href: apiPath("events", event.id, "audio", "both.flac"), download: "" }, "The sound as a file"),
        ),
      ),
    ),
  ];
}
