// Times in the reader's zone: absolute and relative together, relative ones kept fresh.

import { h } from "./dom.js";

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const SHORT = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

export const now = () => Date.now() / 1000;
export const date = (t) => new Date(t * 1000);

export function clock(t, { seconds = true } = {}) {
  const time = (seconds ? CLOCK : SHORT).format(date(t));
  return date(t).toDateString() === new Date().toDateString() ? time : `${DAY.format(date(t))}, ${time}`;
}

export const hour = (t) => SHORT.format(date(t));
export const day = (t) => DAY.format(date(t));

export function span(seconds) {
  const parts = [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min"]];
  for (const [size, unit, smaller, rest] of parts) {
    if (seconds < size) continue;
    const whole = Math.floor(seconds / size), more = smaller ? Math.floor((seconds % size) / smaller) : 0;
    return more && whole < 10 ? `${whole} ${unit} ${more} ${rest}` : `${whole} ${unit}`;
  }
  return `${Math.max(0, Math.round(seconds))} s`;
}

export function ago(t) {
  const past = now() - t;
  if (past < 1.5 && past > -5) return "just now";
  return past > 0 ? `${span(past)} ago` : `in ${span(-past)}`;
}

// <time>4 s ago</time> with the absolute time beside it, or only in its title where there is no room.
export function stamp(t, { absolute = true } = {}) {
  const relative = h("span", { "data-ago": t }, ago(t));
  return h("time", { datetime: date(t).toISOString(), title: FULL.format(date(t)) }, absolute ? [`${clock(t)} (`, relative, ")"] : relative);
}

export function keepFresh() {
  setInterval(() => {
    for (const element of document.querySelectorAll("[data-ago]")) {
      const text = ago(Number(element.dataset.ago));
      if (element.textContent !== text) element.textContent = text;
    }
  }, 1000);
}

export function zone() {
  const name = Intl.DateTimeFormat().resolvedOptions().timeZone || "";
  const minutes = -new Date().getTimezoneOffset();
  const offset = `UTC${minutes < 0 ? "−" : "+"}${Math.floor(Math.abs(minutes) / 60)}${minutes % 60 ? `:${String(Math.abs(minutes) % 60).padStart(2, "0")}` : ""}`;
  return name && name !== "UTC" ? `${name} (${offset})` : offset;
}
