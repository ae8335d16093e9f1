// Sounds to play beside each other: one at a time, from the same moment, so that two can be compared by ear.

import { h, icon, put } from "./dom.js";

// groups: [{ label, note, sounds: [{ name, src }] }]
export function sounds(groups) {
  const audio = new Audio();
  audio.preload = "none";
  const at = h("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0, "aria-label": "Place in the recording", disabled: true });
  const said = h("output", { role: "status" }, "nothing playing");
  let current = null;
  const show = () => {
    for (const button of list.querySelectorAll("button")) {
      const on = button === current && !audio.paused;
      button.setAttribute("aria-pressed", String(on));
      put(button, icon(on ? "stop" : "play"), button.dataset.name);
    }
  };
  const toggle = (button, src) => {
    if (button === current && !audio.paused) {
      audio.pause();
      return;
    }
    const place = button === current ? 0 : audio.currentTime;
    current = button;
    audio.src = src;
    audio.addEventListener("loadedmetadata", () => {
      if (place && place < audio.duration - 0.2) audio.currentTime = place;
    }, { once: true });
    audio.play().catch((error) => { if (error.name !== "AbortError") said.textContent = "This sound is not there any more."; });
  };
  const list = h("ul", { class: "sounds" }, groups.map(({ label, note, sounds: of }) => h("li", {},
    h("span", {}, label, note && h("span", { class: "small" }, ` ${note}`)),
    of.map(({ name, src }) => {
      const button = h("button", { type: "button", "data-name": name, "aria-label": `${name}: ${label}`, "aria-pressed": "false" }, icon("play"), name);
      button.addEventListener("click", () => toggle(button, src));
      return button;
    }),
    !of.length && h("span", { class: "small" }, "no longer on disk"))));
  const time = () => {
    const length = Number.isFinite(audio.duration) ? audio.duration : 0;
    at.disabled = !length;
    at.max = length || 1;
    at.value = audio.currentTime;
    at.setAttribute("aria-valuetext", `${audio.currentTime.toFixed(1)} of ${length.toFixed(1)} seconds`);
    if (current && !audio.paused) said.textContent = `${audio.currentTime.toFixed(1)} of ${length.toFixed(1)} s`;
  };
  audio.addEventListener("timeupdate", time);
  audio.addEventListener("ended", show);
  audio.addEventListener("error", () => { said.textContent = "This sound is not there any more."; });
  for (const kind of ["play", "pause"]) audio.addEventListener(kind, show);
  at.addEventListener("input", () => { audio.currentTime = Number(at.value); });
  return [list, h("div", { class: "playing" }, at, said)];
}
