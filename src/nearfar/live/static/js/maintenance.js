// The maintenance of one machine: times in which it is heard, marked and not judged.

import { actionButton } from "./actions.js";
import { apiPath, get, post, remove } from "./api.js";
import { h, panel, replaceContent } from "./dom.js";
import { clockText } from "./time.js";

const TEXT = {
  title: "Maintenance",
  how: "What is heard in these times is kept and marked, and not judged.",
  from: "From",
  to: "To",
  weekly: "Or every week, such as Sun 06:00-10:00 or Sat-Sun",
  why: "Why (may stay empty)",
  mark: "Mark it",
  marked: "Marked.",
  removed: "Removed.",
  remove: "Remove",
  fixed: "in plant.toml",
  all: "all machines",
  missing: "Give both times, or the span of every week.",
};

// A panel for the machine `id`, which loads its entries by itself.
export function maintenancePanel(id) {
  const list = h("ul", { class: "plain" });
  const field = (type, attributes = {}) => h("input", { type, autocomplete: "off", ...attributes });
  const [from, to] = [field("datetime-local"), field("datetime-local")];
  const [weekly, why] = [field("text", { maxlength: 100 }), field("text", { maxlength: 200 })];
  const moment = (input) => new Date(input.value).toISOString();
  const load = async () => {
    const found = (await get("/v1/maintenance")).maintenance;
    replaceContent(
      list,
      found.filter((e) => !e.machines.length || e.machines.includes(id)).map((e) => entry(e, load)),
    );
  };
  const mark = async (who) => {
    const span = weekly.value.trim();
    if (!span && !(from.value && to.value)) return TEXT.missing;
    await post("/v1/maintenance", {
      when: span || `${moment(from)}/${moment(to)}`,
      machines: [id],
      why: why.value.trim(),
      who,
    });
    for (const input of [from, to, weekly, why]) input.value = "";
    return TEXT.marked;
  };
  load().catch(() => {});
  return panel(
    "maintenance",
    TEXT.title,
    h("p", { class: "small" }, TEXT.how),
    list,
    h(
      "form",
      { class: "new-machine", onsubmit: (event) => event.preventDefault() },
      h("label", {}, TEXT.from, from),
      h("label", {}, TEXT.to, to),
      h("label", {}, TEXT.weekly, weekly),
      h("label", {}, TEXT.why, why),
      h("p", { class: "row" }, actionButton(TEXT.mark, mark, { after: load })),
    ),
  );
}

function entry(e, after) {
  const forget = async (who) => {
    await remove(`${apiPath("maintenance", String(e.id))}?who=${encodeURIComponent(who)}`);
    return TEXT.removed;
  };
  const about = [e.why, e.machines.length ? "" : TEXT.all, e.id ? "" : TEXT.fixed].filter(Boolean).join(", ");
  return h(
    "li",
    { class: "row" },
    h("span", {}, whenText(e.when), about && h("span", { class: "small" }, ` ${about}`)),
    e.id > 0 && actionButton(TEXT.remove, forget, { after }),
  );
}

function whenText(when) {
  const times = when.split("/").map((text) => Date.parse(text) / 1000);
  if (times.length < 2 || times.some(Number.isNaN)) return when;
  return times.map((t) => clockText(t, { seconds: false })).join(" to ");
}
