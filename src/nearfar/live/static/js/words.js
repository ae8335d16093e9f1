// Numbers, states and verdicts as words for the people who look after the machines. Nothing is computed but rounding.

import { fixed, known, t } from "./texts.js";
import { clockText } from "./time.js";

const STATES = {
  normal: { sign: "fine", kind: "fine", rank: 6 },
  unusual: { sign: "odd", kind: "odd", rank: 4 },
  "unacknowledged alarm": { sign: "alarm", kind: "alarm", rank: 0 },
  "acknowledged alarm": { sign: "seen", kind: "alarm", rank: 1 },
  "returned unacknowledged": { sign: "seen", kind: "alarm", rank: 3 },
  shelved: { sign: "shelf", kind: "mute", rank: 5 },
  maintenance: { sign: "shelf", kind: "mute", rank: 5 },
  "no sound": { sign: "cross", kind: "mute", rank: 2 },
  quiet: { sign: "wait", kind: "mute", rank: 3 },
  ended: { sign: "wait", kind: "mute", rank: 5 },
  waiting: { sign: "wait", kind: "mute", rank: 5 },
};
const RECORDINGS = {
  normal: { sign: "fine", kind: "fine" },
  unusual: { sign: "odd", kind: "odd" },
  wrong: { sign: "alarm", kind: "alarm" },
  check: { sign: "cross", kind: "mute" },
  "cannot judge": { sign: "cross", kind: "mute", rank: 2 },
};

export function stateLabel(machine) {
  const state = STATES[machine.state] ? machine.state : "waiting";
  if (state === "normal" && machine.window?.anomalous)  // an alarm needs several in a row
    return { ...STATES.unusual, word: t("words.last_wrong") };
  const failing = machine.source === "stale" || machine.source === "failed";
  if (state === "no sound" && machine.window?.anomalous === null && !failing) return recordingLabel("cannot judge");
  const word =
    state === "shelved" && machine.shelved_until
      ? t("words.shelved_until", { time: clockText(machine.shelved_until, { seconds: false }) })
      : t(`states.${state}`);
  return { ...STATES[state], word };
}

// A recording that was heard: normal, unusual, wrong or cannot judge.
export function recordingLabel(status) {
  const judged = RECORDINGS[status] ? status : "cannot judge";
  return { ...RECORDINGS[judged], word: t(`recordings.${judged}`) };
}

// What the server answers to a recording: the label, and in words with the score.
export function resultLabel({ anomalous, unusual, warnings }) {
  if (anomalous === null) return recordingLabel("cannot judge");
  if (!anomalous && !unusual) return recordingLabel("normal");
  return recordingLabel(warnings.length ? "check" : anomalous ? "wrong" : "unusual");
}
export const resultText = (answer) => `${resultLabel(answer).word}, ${scoreText(answer.score)}`;

export function summaryText(machines) {
  const inState = (...states) => machines.filter((m) => states.includes(m.state)).length;
  const [alarms, mute] = [inState("unacknowledged alarm", "acknowledged alarm"), inState("no sound")];
  const odd = machines.filter((m) => m.unusual_stands).length;
  const missed = inState("returned unacknowledged");
  const trouble = mute ? 0 : machines.filter((m) => m.health.length).length;
  const some = (key, count) => count > 0 && t(key, { count });
  const texts = [
    t("words.machines", { count: machines.length }),
    some("words.in_alarm", alarms) || t("words.none_in_alarm"),
    some("words.unusual", odd),
    some("words.missed", missed),
    some("words.mute", mute),
    some("words.trouble", trouble),
  ];
  return `${texts.filter(Boolean).join(", ")}.`;
}

export function scoreText(value) {
  if (value === null || value === undefined) return "–";
  return fixed(value, Math.abs(value) >= 100 ? 0 : 1);
}

// A machine after its newest window.
export function afterWindow(machine, window) {
  const score = window.anomalous === null ? null : window.score;
  return { ...machine, window, score, last_heard: window.t1, threshold: window.threshold };
}

export function levelText(db) {
  if (db === null || db === undefined) return "–";
  return db < -110 ? t("words.silent") : `${fixed(db, 0)} dBFS`;
}

export function frequencyText(perWeek) {
  const rate = (key, count) => t(key, { count: count >= 9.95 ? Math.round(count) : Number(count.toPrecision(2)) });
  if (perWeek >= 14) return rate("rates.days", perWeek / 7);
  if (perWeek >= 0.95) return rate("rates.weeks", perWeek);
  const weeks = 1 / perWeek;
  return weeks < 9
    ? rate("rates.in_weeks", weeks)
    : weeks < 104
      ? rate("rates.in_months", weeks / 4.345)
      : rate("rates.in_years", weeks / 52.18);
}

export function rarityText(p) {
  if (p === null || p === undefined) return "";
  if (p > 0.4) return t("words.often");
  if (p < 1e-6) return t("words.never");
  const one = 1 / p;
  return t("words.seldom", { count: one < 10 ? Math.round(one) : Number(one.toPrecision(2)) });
}

export function verdictLabel(event) {
  const said = (key, who, sign, kind) => {
    const verdict = t(`verdicts.${key}`);
    return { word: who ? t("verdicts.by", { verdict, who }) : verdict, sign, kind };
  };
  if (event.verdict === "fine") return said("fine", event.verdict_by, "fine", "fine");
  if (event.verdict === "fault") return said("fault", event.verdict_by, "alarm", "alarm");
  if (event.acknowledged) return said("seen", event.acknowledged_by, "seen", event.ended ? "mute" : "alarm");
  if (event.ended) return said("over", "", "wait", "mute");
  if (event.kind === "unusual") return said("open", "", "odd", "odd");
  return event.kind === "health" ? said("open", "", "cross", "mute") : said("open", "", "alarm", "alarm");
}

export const actionText = (name) => (known(`audit.${name}`) ? t(`audit.${name}`) : name);

// The kind of an event in a word.
export const eventWord = (event) => t(`kinds.${event.kind}`);

// Whether an event has a sound that can be judged.
export function isHeard(event) {
  return event.kind === "alarm" || event.kind === "unusual";
}

// Under which set-point an event stands: "alarm above 3.4".
export const limitText = (event) =>
  t(event.kind === "unusual" ? "words.unusual_above" : "words.alarm_above", { value: scoreText(event.threshold) });

export function asSentence(text) {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return !first || /[.?!]$/.test(first) ? first : `${first}.`;
}
