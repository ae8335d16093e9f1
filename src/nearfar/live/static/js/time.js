// Times in the time zone of the reader, absolute and relative; the relative ones are refreshed.

import { h } from "./dom.js";

const CLOCK = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});
const SHORT = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

export const now = () => Date.now() / 1000;
export const date = (t) => new Date(t * 1000);

export function clockText(t, { seconds = true } = {}) {
  const time = (seconds ? CLOCK : SHORT).format(date(t));
  return date(t).toDateString() === new Date().toDateString() ? time : `${DAY.format(date(t))}, ${time}`;
}

export const hourText = (t) => SHORT.format(date(t));
export const dayText = (t) => DAY.format(date(t));

export function durationText(seconds) {
  const parts = [
    [86400, "d", 3600, "h"],
    [3600, "h", 60, "min"],
    [60, "min"],
  ];
  for (const [size, unit, smaller, rest] of parts) {
    if (seconds < size) continue;
    const whole = Math.floor(seconds / size),
      more = smaller ? Math.floor((seconds % size) / smaller) : 0;
    return more && whole < 10 ? `${whole} ${unit} ${more} ${rest}` : `${whole} ${unit}`;
  }
  return `${Math.max(0, Math.round(seconds))} s`;
}

export function agoText(t) {
  const past = now() - t;
  if (past < 1.5 && past > -5) return "just now";
  return past > 0 ? `${durationText(past)} ago` : `in ${durationText(-past)}`;
}

// <time>4 s ago</time> with the absolute time beside it, or only in its title where there is no room.
export function timeElement(t, { absolute = true } = {}) {
  const relative = h("span", { "data-ago": t }, agoText(t));
  return h(
    "time",
    { datetime: date(t).toISOString(), title: FULL.format(date(t)) },
    absolute ? [`${clockText(t)} (`, relative, ")"] : relative,
  );
}

export function refreshTimes() {
  setInterval(() => {
    for (const element of document.querySelectorAll("[data-ago]")) {
      const text = agoText(Number(element.dataset.ago));
      if (element.textContent !== text) element.textContent = text;
    }
  }, 1000);
}

export function timeZone() {
  const name = Intl.DateTimeFormat().resolvedOptions().timeZone || "";
  const minutes = -new Date().getTimezoneOffset();
  const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
  const offset = `UTC${minutes < 0 ? "−" : "+"}${hours}${rest ? `:${String(rest).padStart(2, "0")}` : ""}`;
  return name && name !== "UTC" ? `${name} (${offset})` : offset;
}
