// Level meters of near and far, with a word beside the number.

import { h, replaceContent } from "./dom.js";
import { fixed, t } from "./texts.js";

const NAMES = ["levels.near", "levels.far"];
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
          "aria-label": t(NAMES[i]),
        });
        const text = h("output", { class: "small" });
        return { meter, text, element: h("div", { class: "level" }, h("b", {}, t(NAMES[i])), meter, text) };
      });
      replaceContent(
        element,
        rows.map((row) => row.element),
      );
    }
    levels.forEach((db, i) => {
      rows[i].meter.value = Math.max(LOWEST, db);
      const word = db < SILENT_DB ? "silent" : db < QUIET_DB ? "quiet" : db > LOUD_DB ? "loud" : "good";
      rows[i].text.textContent = `${fixed(Math.max(LOWEST, db), 0)} dB, ${t(`levels.${word}`)}`;
    });
  };
  return { element, show };
}
