// Numbers, states and verdicts as words for the people who look after the machines. Nothing is computed but rounding.

import { clockText } from "./time.js";

const STATES = {
  normal: { word: "Fine", sign: "fine", kind: "fine", rank: 6 },
  unusual: { word: "Unusual", sign: "odd", kind: "odd", rank: 4 },
  "unacknowledged alarm": { word: "Alarm", sign: "alarm", kind: "alarm", rank: 0 },
  "acknowledged alarm": { word: "Alarm, seen", sign: "seen", kind: "alarm", rank: 1 },
  "returned unacknowledged": { word: "Was in alarm", sign: "seen", kind: "alarm", rank: 3 },
  shelved: { word: "Shelved", sign: "shelf", kind: "mute", rank: 5 },
  maintenance: { word: "Maintenance", sign: "shelf", kind: "mute", rank: 5 },
  "no sound": { word: "Not heard", sign: "cross", kind: "mute", rank: 2 },
  quiet: { word: "Not heard for a day", sign: "wait", kind: "mute", rank: 3 },
  ended: { word: "Recording over", sign: "wait", kind: "mute", rank: 5 },
  waiting: { word: "Not heard yet", sign: "wait", kind: "mute", rank: 5 },
};
const UNJUDGED = { word: "Cannot judge", sign: "cross", kind: "mute", rank: 2 };
const RECORDINGS = {
  normal: { word: "Sounds normal", sign: "fine", kind: "fine" },
  unusual: { word: "Unusual", sign: "odd", kind: "odd" },
  wrong: { word: "Sounds wrong", sign: "alarm", kind: "alarm" },
  "cannot judge": UNJUDGED,
};

export function stateLabel(machine) {
  const known = STATES[machine.state] || STATES.waiting;
  const failing = machine.source === "stale" || machine.source === "failed";
  if (machine.state === "no sound" && machine.window?.anomalous === null && !failing) return UNJUDGED;
  if (machine.state === "shelved" && machine.shelved_until)
    return { ...known, word: `Shelved until ${clockText(machine.shelved_until, { seconds: false })}` };
  return known;
}

// A recording that was heard: normal, unusual, wrong or cannot judge.
export const recordingLabel = (status) => RECORDINGS[status] || UNJUDGED;

// What the server answers to a recording: the label, and in words with the score.
export const resultLabel = ({ anomalous, unusual }) =>
  recordingLabel(anomalous === null ? "cannot judge" : anomalous ? "wrong" : unusual ? "unusual" : "normal");
export const resultText = (answer) => `${resultLabel(answer).word}, ${scoreText(answer.score)}`;

// "1.2 standard deviations", as everywhere beside a score.
export const scoreUnit = (value) => `${scoreText(value)} standard deviations above normal`;

export function summaryText(machines) {
  const count = (...states) => machines.filter((m) => states.includes(m.state)).length;
  const parts = [`${machines.length} machine${machines.length === 1 ? "" : "s"}`];
  const alarms = count("unacknowledged alarm", "acknowledged alarm"),
    mute = count("no sound");
  const trouble = machines.filter((m) => m.health.length).length;
  parts.push(alarms ? `${alarms} in alarm` : "none in alarm");
  const odd = machines.filter((m) => m.unusual_stands).length;
  if (odd) parts.push(`${odd} unusual`);
  const missed = count("returned unacknowledged");
  if (missed) parts.push(`${missed} ${missed === 1 ? "was" : "were"} in alarm and nobody acknowledged it`);
  if (mute) parts.push(`${mute} without sound`);
  else if (trouble) parts.push(`${trouble} with a microphone problem`);
  return `${parts.join(", ")}.`;
}

export function scoreText(value) {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value).toFixed(Math.abs(value) >= 100 ? 0 : 1);
  return value < 0 && Number(text) ? `−${text}` : text;
}

// A machine after its newest window.
export function afterWindow(machine, window) {
  const score = window.anomalous === null ? null : window.score;
  return { ...machine, window, score, last_heard: window.t1, threshold: window.threshold };
}

export function levelText(db) {
  if (db !== null && db !== undefined && db < -110) return "silent";
  return db === null || db === undefined ? "–" : `${db < 0 ? "−" : ""}${Math.abs(db).toFixed(0)} dBFS`;
}

export function frequencyText(perWeek) {
  if (perWeek >= 14) return `${rounded(perWeek / 7)} a day`;
  if (perWeek >= 0.95) return `${rounded(perWeek)} a week`;
  const weeks = 1 / perWeek;
  return weeks < 9
    ? `1 in ${rounded(weeks)} weeks`
    : weeks < 104
      ? `1 in ${rounded(weeks / 4.345)} months`
      : `1 in ${rounded(weeks / 52.18)} years`;
}

export function rounded(x) {
  return x >= 9.95 ? Math.round(x).toLocaleString() : Number(x.toPrecision(2)).toString();
}

export function rarityText(p) {
  if (p === null || p === undefined) return "";
  if (p > 0.4) return "Healthy recordings often sound like this.";
  if (p < 1e-6) return "Fewer than 1 healthy recording in a million sounds as unusual.";
  const digits = 10 ** Math.max(0, Math.floor(Math.log10(1 / p)) - 1);
  return `About 1 healthy recording in ${(Math.round(1 / p / digits) * digits).toLocaleString()} sounds as unusual.`;
}

export function verdictLabel(event) {
  if (event.verdict === "fine") return { word: `Was fine${by(event.verdict_by)}`, sign: "fine", kind: "fine" };
  if (event.verdict === "fault") return { word: `Real fault${by(event.verdict_by)}`, sign: "alarm", kind: "alarm" };
  if (event.acknowledged)
    return { word: `Seen${by(event.acknowledged_by)}`, sign: "seen", kind: event.ended ? "mute" : "alarm" };
  if (event.ended) return { word: "Over, unanswered", sign: "wait", kind: "mute" };
  if (event.kind === "unusual") return { word: "Unanswered", sign: "odd", kind: "odd" };
  return {
    word: "Unanswered",
    sign: event.kind === "health" ? "cross" : "alarm",
    kind: event.kind === "health" ? "mute" : "alarm",
  };
}

const by = (name) => (name ? `, ${name}` : "");

const ACTIONS = {
  fine: "it was fine, added to the normal recordings",
  undo: "took that back",
  fault: "a real fault",
  acknowledge: "acknowledged it",
  shelve: "shelved it",
  unshelve: "ended the shelving",
  "set-point": "changed the set-point",
  add: "added normal recordings",
  reload: "changed the model folder",
  "channel added": "added a channel to people",
  "channel removed": "removed a channel to people",
  maintenance: "marked maintenance",
  "no maintenance": "removed maintenance",
  remove: "took recordings out of the normals",
  tag: "named a session",
  score: "scored a recording",
  note: "noted",
  report: "sent the report",
  "machine added": "added the machine",
  "machine replaced": "fitted or changed the machine",
  "machine removed": "removed the machine",
};

export function actionText(name) {
  return ACTIONS[name] || name;
}

const TRIGGERS = { steady: "its steady sound", transient: "single moments", loudness: "its loudness" };

export function triggerText(event) {
  const what = event.triggered_by.map((name) => TRIGGERS[name] || name).join(" and ");
  return what ? `Noticed in ${what}. ` : "";
}

// The kind of an event in a word.
export function eventWord(event) {
  return { health: "Microphone", trend: "Slow rise", unusual: "Unusual" }[event.kind] || "Alarm";
}

// Whether an event has a sound that can be judged.
export function isHeard(event) {
  return event.kind === "alarm" || event.kind === "unusual";
}

// Under which set-point an event stands: "alarm above 3.4".
export function limitText(event) {
  return `${event.kind === "unusual" ? "unusual" : "alarm"} above ${scoreText(event.threshold)}`;
}

export function asSentence(text) {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return !first || /[.?!]$/.test(first) ? first : `${first}.`;
}
