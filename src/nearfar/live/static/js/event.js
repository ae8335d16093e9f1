// One event: what was heard, where it differs, the normals to play beside it, and what people say it was.

import { act } from "./acts.js";
import { at, get, post } from "./api.js";
import { badge, crumbs, empty, h, put, title } from "./dom.js";
import { sounds } from "./listen.js";
import { listen } from "./stream.js";
import { span, stamp } from "./time.js";
import { action, heard, score, sentence, verdict } from "./words.js";

export async function show(main, id) {
  let event = await get(at("events", id));
  const what = event.kind === "health" ? "Microphone" : "Alarm";
  title(`${what}: ${event.name}`);
  const head = h("div", { class: "title" }), facts = h("section", { class: "panel" }), acts = h("section", { class: "panel", "aria-labelledby": "answer" }), evidence = h("div", {}), trail = h("div", {});
  put(main, crumbs(["Machines", "/"], [event.name, `/machine/${encodeURIComponent(event.machine)}`], [what]), head, h("div", { class: "pair" }, facts, acts), evidence, trail);

  const reload = async () => { event = await get(at("events", id)); draw(); };
  const draw = () => {
    put(head, h("h1", {}, `${what}: ${event.name}`), badge(verdict(event)));
    put(facts, told(event));
    const focused = acts.contains(document.activeElement) ? document.activeElement.textContent : "";
    put(acts, answers(event, reload));
    if (focused) ([...acts.querySelectorAll("button")].find((b) => b.textContent === focused) || acts.querySelector("button"))?.focus();
    put(trail, noted(event, reload));
  };
  draw();
  listen({ event: (e) => { if (String(e.id) === id) reload().catch(() => {}); }, audit: (a) => { if (a.machine === event.machine) reload().catch(() => {}); }, resync: reload });
  if (event.kind === "health") return;
  if (!event.has_audio) {
    put(evidence, h("section", { class: "panel" }, empty("The sound of this event is not kept any more: the space for sounds is limited, and the oldest go first.")));
    return;
  }
  put(evidence, h("section", { class: "panel" }, empty("Looking at the sound")));
  look(event).then((found) => put(evidence, found), (error) => put(evidence, h("section", { class: "panel trouble", role: "alert" }, h("p", {}, error.message))));
}

function told(event) {
  const lasted = event.ended ? `It lasted ${span(event.ended - event.started)}.` : "It still stands.";
  if (event.kind === "health") return [h("p", { class: "lead" }, sentence(event.text)), h("p", {}, "Since ", stamp(event.started), `. ${lasted} What such a microphone hears is never called normal.`)];
  return [
    h("div", { class: "now" }, h("b", {}, score(event.peak_score)), h("span", { class: "small" }, `at its highest; alarm above ${score(event.threshold)}`)),
    h("p", {}, "Began ", stamp(event.started), `. ${lasted}`),
    h("p", { class: "small" }, heard(event), event.interrupted && "Nobody was listening afterwards: the server was stopped."),
  ];
}

function answers(event, after) {
  const tell = (path, body, text) => async (name) => { await post(at("events", event.id, path), { ...body, who: name }); return text; };
  const buttons = [
    !event.acknowledged && act("Acknowledge", tell("acknowledge", {}, "Acknowledged: others see that somebody looks after it."), { main: !event.ended, after }),
  ];
  if (event.kind === "alarm") {
    buttons.push(
      event.verdict !== "fine" && act("It was fine", async (name) => {
        const answer = await post(at("events", event.id, "feedback"), { verdict: "fine", who: name });
        return `${answer.message} ${sentence(answer.note)}`;
      }, { after, disabled: !event.has_audio }),
      event.verdict !== "fault" && event.verdict !== "fine" && act("Real fault", tell("feedback", { verdict: "fault" }, "Noted as a real fault."), { after }));
  }
  buttons.push(act("Shelve 8 h", async (name) => { await post(at("machines", event.machine, "shelve"), { hours: 8, who: name }); return `${event.name} is shelved for 8 h: nothing is raised, everything is recorded.`; }, { after }));
  return [
    h("h2", { id: "answer" }, "What was it?"),
    h("p", { class: "small" }, event.kind === "alarm" ? "“It was fine” adds this sound to the machine's normal recordings, so that it does not alarm again. That can be taken back below." : "Acknowledge it when somebody looks after the microphone."),
    h("div", { class: "row acts" }, buttons),
  ];
}

function noted(event, after) {
  if (!event.audit.length) return null;
  return h("section", { class: "panel", "aria-labelledby": "noted" }, h("h2", { id: "noted" }, "What was done"), h("ul", { class: "plain" }, event.audit.map((a) => h("li", {},
    h("div", { class: "row" }, h("span", {}, stamp(a.at), ` ${a.who}: `, action(a.action)), a.can_undo && act("Take it back", async (name) => {
      await post(at("audit", a.id, "undo"), { who: name });
      return "Taken back: the normal recordings are what they were.";
    }, { after })), a.note && h("p", { class: "say" }, sentence(a.note))))));
}

async function look(event) {
  const e = await get(at("events", event.id, "explanation"));
  const src = (...parts) => `${at("events", event.id, ...parts)}?gain_db=${e.gain_db}`;
  const channels = e.channels.map((name) => ({ name, src: src("audio", name) }));
  const groups = [{ label: "This event", sounds: channels }, ...e.nearest.map((n, i) => ({
    label: n.name, note: ["most alike", "second", "third"][i], sounds: n.playable ? e.channels.map((name) => ({ name, src: src("nearest", i + 1, name) })) : [] }))];
  const picture = at("events", event.id, "spectrogram.png");
  const image = h("img", { src: picture, alt: `Pitch over time. ${e.sentence}`, width: 705, height: 750 });
  const figure = h("figure", {}, h("picture", {}, h("source", { srcset: `${picture}?dark=true`, media: "screen and (prefers-color-scheme: dark)" }), image),
    h("figcaption", {}, e.clear ? "Above the event, with what differs outlined; below, to compare, a normal recording. Louder is brighter." : "Above the event, below a normal recording to compare. Louder is brighter."));
  image.addEventListener("error", async () => {
    const answer = await get(picture).catch((error) => error);
    put(figure, empty(answer.message || "The picture cannot be drawn."));
  });
  return [
    h("section", { class: "panel" }, h("h2", {}, "What differs"), h("p", { class: "lead" }, e.what), e.lines.map((line) => h("p", {}, line))),
    h("div", { class: "pair" },
      h("section", { class: "panel" }, h("h2", {}, "Look"), figure),
      h("section", { class: "panel" }, h("h2", {}, "Listen"), sounds(groups),
        h("p", { class: "small" }, `All are played ${Math.abs(e.gain_db)} dB ${e.gain_db >= 0 ? "louder" : "quieter"}, and so can be compared. Changing over stays at the same place in time.`),
        h("p", {}, h("a", { href: at("events", event.id, "audio", "both.flac"), download: "" }, "The sound as a file")))),
  ];
}
