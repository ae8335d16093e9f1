// Times in the time zone of the reader, absolute and relative; the relative ones are refreshed.

import { h } from "./dom.js";
import { LOCALE, t } from "./texts.js";

const MINUTES = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const SECONDS = { ...MINUTES, second: "2-digit" };
const DAY = { day: "numeric", month: "short" };
const format = (options) => new Intl.DateTimeFormat(LOCALE, options);
const [CLOCK, SHORT] = [SECONDS, MINUTES].map(format);
const [DAY_CLOCK, DAY_SHORT, ONLY_DAY] = [{ ...DAY, ...SECONDS }, { ...DAY, ...MINUTES }, DAY].map(format);
const FULL = format({ dateStyle: "full", timeStyle: "long" });

export const now = () => Date.now() / 1000;
export const date = (seconds) => new Date(seconds * 1000);

export function clockText(when, { seconds = true } = {}) {
  const today = date(when).toDateString() === new Date().toDateString();
  const shape = today ? (seconds ? CLOCK : SHORT) : seconds ? DAY_CLOCK : DAY_SHORT;
  return shape.format(date(when));
}

export const hourText = (when) => SHORT.format(date(when));
export const dayText = (when) => ONLY_DAY.format(date(when));

export const DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]; // of the week, as the server writes them
const weekday = new Intl.DateTimeFormat(LOCALE, { weekday: "short", timeZone: "UTC" });
const OWN_DAYS = DAYS.map((_, i) => weekday.format(Date.UTC(2024, 0, 1 + i)).replace(".", "")); // from a Monday on

const renamed = (text, from, to) =>
  text.replace(/\p{L}+/gu, (word) => to[from.findIndex((day) => day.toLowerCase() === word.toLowerCase())] ?? word);

// A span of every week, such as "Sat-Sun", with the days of the reader's language, and back.
export const spanText = (span) => renamed(span, DAYS, OWN_DAYS);
export const spanOf = (text) => renamed(text, OWN_DAYS, DAYS);

const UNITS = [
  [86400, "time.days"],
  [3600, "time.hours"],
  [60, "time.minutes"],
  [1, "time.seconds"],
];

export function durationText(seconds) {
  const place = UNITS.findIndex(([size]) => seconds >= size);
  if (place < 0 || place === 3) return t("time.seconds", { count: Math.max(0, Math.round(seconds)) });
  const [size, unit] = UNITS[place];
  const [smaller, rest] = UNITS[place + 1];
  const whole = Math.floor(seconds / size);
  const more = smaller > 1 ? Math.floor((seconds % size) / smaller) : 0;
  const text = t(unit, { count: whole });
  return more && whole < 10 ? `${text} ${t(rest, { count: more })}` : text;
}

export function agoText(when) {
  const past = now() - when;
  if (past < 1.5 && past > -5) return t("time.now");
  return past > 0
    ? t("time.ago", { duration: durationText(past) })
    : t("time.ahead", { duration: durationText(-past) });
}

// <time>4 s ago</time> with the absolute time beside it, or only in its title where there is no room.
export function timeElement(when, { absolute = true } = {}) {
  const relative = h("span", { "data-ago": when }, agoText(when));
  return h(
    "time",
    { datetime: date(when).toISOString(), title: FULL.format(date(when)) },
    absolute ? [`${clockText(when)} (`, relative, ")"] : relative,
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
