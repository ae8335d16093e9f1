// The maintenance of one machine: times in which it is heard, marked and not judged.

import { actionButton } from "./actions.js";
import { apiPath, get, post, remove } from "./api.js";
import { h, panel, replaceContent } from "./dom.js";
import { t } from "./texts.js";
import { clockText, spanOf, spanText } from "./time.js";

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
    const span = spanOf(weekly.value.trim());
    if (!span && !(from.value && to.value)) return t("maintenance.missing");
    await post("/v1/maintenance", {
      when: span || `${moment(from)}/${moment(to)}`,
      machines: [id],
      why: why.value.trim(),
      who,
    });
    for (const input of [from, to, weekly, why]) input.value = "";
    return t("maintenance.marked");
  };
  load().catch(() => {});
  const form = h(
    "form",
    { class: "new-machine", onsubmit: (event) => event.preventDefault() },
    h("label", {}, t("maintenance.from"), from),
    h("label", {}, t("maintenance.to"), to),
    h("label", {}, t("maintenance.weekly", { one: spanText("Sun 06:00-10:00"), other: spanText("Sat-Sun") }), weekly),
    h("label", {}, t("maintenance.why"), why),
    h("p", { class: "row" }, actionButton(t("maintenance.mark"), mark, { after: load })),
  );
  return panel(
    "maintenance",
    t("maintenance.title"),
    h("p", { class: "small" }, t("maintenance.how")),
    list,
    h("details", {}, h("summary", {}, t("maintenance.new")), form),
  );
}

function entry(e, after) {
  const forget = async (who) => {
    await remove(`${apiPath("maintenance", String(e.id))}?who=${encodeURIComponent(who)}`);
    return t("maintenance.removed");
  };
  const about = [e.why, !e.machines.length && t("maintenance.all"), !e.id && t("maintenance.fixed")].filter(Boolean);
  return h(
    "li",
    { class: "row" },
    h("span", {}, whenText(e.when), h("span", { class: "small" }, ` ${about.join(", ")}`)),
    e.id > 0 && actionButton(t("maintenance.remove"), forget, { after }),
  );
}

function whenText(when) {
  const times = when.split("/").map((text) => Date.parse(text) / 1000);
  if (times.length < 2 || times.some(Number.isNaN)) return spanText(when);
  const [from, to] = times.map((each) => clockText(each, { seconds: false }));
  return t("time.to", { from, to });
}
