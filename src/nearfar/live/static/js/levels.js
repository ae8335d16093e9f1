// Level meters of near and far, with a word beside the number.

import { h, replaceContent } from "./dom.js";

const TEXT = {
  names: ["Near", "Far"],
  silent: "silent",
  quiet: "too quiet",
  good: "good",
  loud: "very loud",
  level: (db) => `${db < 0 ? "−" : ""}${Math.abs(db).toFixed(0)} dB`,
};
const LOWEST = -90;
const [SILENT_DB, QUIET_DB, LOUD_DB] = [-85, -60, -6];

// { element, show(levels) }; levels are in dB of full scale, [] for none.
export function levelMeters() {
  const element = h("div", { class: "levels" });
  let rows = [];
  const show = (levels) => {
    if (levels.length !== rows.length) {
      rows = levels.map((_, i) => {
        const meter = h("meter", {
          min: LOWEST,
          max: 0,
          low: QUIET_DB,
          high: LOUD_DB,
          optimum: -30,
          "aria-label": TEXT.names[i],
        });
        const text = h("output", { class: "small" });
        return { meter, text, element: h("div", { class: "level" }, h("b", {}, TEXT.names[i]), meter, text) };
      });
      replaceContent(
        element,
        rows.map((row) => row.element),
      );
    }
    levels.forEach((db, i) => {
      rows[i].meter.value = Math.max(LOWEST, db);
      const word = db < SILENT_DB ? TEXT.silent : db < QUIET_DB ? TEXT.quiet : db > LOUD_DB ? TEXT.loud : TEXT.good;
      rows[i].text.textContent = `${TEXT.level(Math.max(LOWEST, db))}, ${word}`;
    });
  };
  return { element, show };
}
