// Plays one of several sounds at a time. The next one starts at the same position, so that two can be compared by ear.

import { at, h, icon, replaceContent } from "./dom.js";
import { fixed, t } from "./texts.js";

// Why a sound does not play: one that the server does not have counts as one of an unknown format.
const whyNot = (audio) =>
  t(audio.error?.code === MediaError.MEDIA_ERR_SRC_NOT_SUPPORTED ? "player.deleted" : "player.mute");

// groups: [{ label, hint, sounds: [{ name, src }] }]; with `answers`, buttons behind them, `name` for screen readers, and
// `missing`, the words where there is no sound
export function player(groups) {
  const audio = new Audio();
  audio.preload = "none";
  const position = h("input", {
    type: "range",
    min: 0,
    max: 1,
    step: 0.01,
    value: 0,
    "aria-label": t("player.position"),
    disabled: true,
  });
  const status = h("output", { role: "status" }, t("player.stopped"));
  let current = null;
  const showButtons = () => {
    for (const button of list.querySelectorAll("button[data-name]")) {
      const on = button === current && !audio.paused;
      button.setAttribute("aria-pressed", String(on));
      replaceContent(button, icon(on ? "stop" : "play"), button.dataset.name);
    }
  };
  const toggle = (button, src) => {
    if (button === current && !audio.paused) {
      audio.pause();
      return;
    }
    const start = button === current ? 0 : audio.currentTime;
    current = button;
    audio.src = at(src);
    audio.addEventListener(
      "loadedmetadata",
      () => {
        if (start && start < audio.duration - 0.2) audio.currentTime = start;
      },
      { once: true },
    );
    audio.play().catch((error) => {
      if (error.name !== "AbortError") status.textContent = whyNot(audio);
    });
  };
  const list = h(
    "ul",
    { class: "sounds" },
    groups.map(({ label, name: spoken, hint, sounds, answers, missing = t("player.missing") }) =>
      h(
        "li",
        {},
        h("span", {}, label, hint && h("span", { class: "small" }, ` ${hint}`)),
        sounds.map(({ name, src }) => {
          const side = t(`channels.${name}`);
          const spokenName = `${side}: ${spoken || label}`;
          const button = h(
            "button",
            { type: "button", "data-name": side, "aria-label": spokenName, "aria-pressed": "false" },
            icon("play"),
            side,
          );
          button.addEventListener("click", () => toggle(button, src));
          return button;
        }),
        !sounds.length && missing && h("span", { class: "small" }, missing),
        answers,
      ),
    ),
  );
  const showPosition = () => {
    const length = Number.isFinite(audio.duration) ? audio.duration : 0;
    position.disabled = !length;
    position.max = length || 1;
    position.value = audio.currentTime;
    const times = { now: fixed(audio.currentTime, 1), length: fixed(length, 1) };
    position.setAttribute("aria-valuetext", t("player.at", times));
    if (current && !audio.paused) status.textContent = t("player.at_short", times);
  };
  audio.addEventListener("timeupdate", showPosition);
  audio.addEventListener("ended", showButtons);
  audio.addEventListener("error", () => {
    status.textContent = whyNot(audio);
  });
  for (const kind of ["play", "pause"]) audio.addEventListener(kind, showButtons);
  position.addEventListener("input", () => {
    audio.currentTime = Number(position.value);
  });
  return [list, h("div", { class: "playing" }, position, status)];
}

// One button that goes back and forth between two sounds at the same place: { label, src } each.
export function switchPlayer(first, second) {
  const audio = [first, second].map((sound) => Object.assign(new Audio(at(sound.src)), { preload: "auto" }));
  let now = 0;
  const names = [first, second].map((sound, i) => h("span", { class: "side", "data-side": "AB"[i] }, sound.label));
  const button = h("button", { type: "button", class: "main" });
  const stop = h("button", { type: "button" }, icon("stop"), t("player.stop"));
  const problem = h("p", { class: "warning", role: "status" });
  const show = () => {
    const playing = audio.some((each) => !each.paused);
    replaceContent(button, icon("play"), t(playing ? "event.switch" : "event.start"));
    names.forEach((name, i) => name.toggleAttribute("data-on", playing && i === now));
    stop.disabled = !playing;
  };
  const play = () => {
    const was = audio.find((each) => !each.paused);
    if (was) {
      now = 1 - now;
      was.pause();
      audio[now].currentTime = Math.min(was.currentTime, (audio[now].duration || was.currentTime) - 0.05);
    }
    audio[now].play().catch(() => {});
  };
  for (const each of audio)
    each.addEventListener("error", () => {
      problem.textContent = whyNot(each);
      show();
    });
  for (const each of audio) for (const kind of ["play", "pause", "ended"]) each.addEventListener(kind, show);
  button.addEventListener("click", play);
  stop.addEventListener("click", () => audio.forEach((each) => each.pause()));
  show();
  return h(
    "div",
    { class: "switch" },
    h("p", { class: "row" }, button, stop),
    h("p", { class: "sides", role: "status" }, names),
    problem,
  );
}
