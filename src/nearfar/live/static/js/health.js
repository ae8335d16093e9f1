// The health of the microphones, the history and the server.

import { actionButton } from "./actions.js";
import { apiPath, get, post, remove, update } from "./api.js";
import { badge, facts, h, note, panel, replaceContent, setTitle, table } from "./dom.js";
import { eventTable } from "./machine.js";
import { subscribe, throttle } from "./stream.js";
import { fixed, number, parts, t } from "./texts.js";
import { DAYS, now, spanOf, spanText, timeElement } from "./time.js";
import { asSentence, levelText, stateLabel } from "./words.js";

export async function show(main) {
  setTitle(t("health.title"));
  const [body, next, rest] = [h("div", {}), h("div", {}), h("div", {})];
  const adding = channelForm(() => load());
  const reports = reportForm(() => load());
  const forms = [body, adding.element, next, reports.element, rest];
  replaceContent(main, h("div", { class: "title" }, h("h1", {}, t("health.title"))), forms);
  const load = async () => {
    const [health, people, found] = await Promise.all([
      get("/v1/health"),
      get("/v1/channels"),
      get(`/v1/events?kind=health&limit=20&since=${now() - 30 * 86400}`),
    ]);
    const focused = document.activeElement?.getAttribute("href");
    replaceContent(
      body,
      health.problems.map((text) => h("p", { class: "panel trouble", role: "alert" }, asSentence(text))),
      microphones(health.machines),
      panel("problems", t("health.problems"), eventTable(found.events, { machine: true })),
      messages(people.channels, health.machines, load),
    );
    const machines = health.machines.map(({ id, name }) => [id, name]);
    adding.draw(machines);
    replaceContent(next, nextReport(health.report, load));
    reports.draw(machines, people.channels.map(({ name }) => [name, name]), health.report);
    replaceContent(rest, server(health));
    if (focused) body.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  };
  await load();
  const loadSoon = throttle(() => load().catch(() => {}), 4000);
  subscribe({
    state: loadSoon,
    score: loadSoon,
    event: () => load().catch(() => {}),
    resync: () => load().catch(() => {}),
  });
  loadSoon();
}

const WEAKER_DB = 6;
const isWeaker = (w) => Boolean(w && w.level_far_dbfs !== null && w.level_far_dbfs - w.level_near_dbfs > WEAKER_DB);

function microphones(machines) {
  if (!machines.length) return note(t("health.no_machine"));
  const fine = { word: t("health.fine"), sign: "fine", kind: "fine" };
  const problem = { word: t("health.problem"), sign: "cross", kind: "mute" };
  const row = (machine) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, h("a", { href: `/machine/${encodeURIComponent(machine.id)}` }, machine.name)),
      h(
        "td",
        {},
        badge(machine.health.length ? problem : machine.last_heard ? fine : stateLabel(machine)),
        machine.health.map((text) => h("p", { class: "small" }, asSentence(text))),
        isWeaker(machine.window) && h("p", { class: "warning" }, t("health.weaker")),
      ),
      h(
        "td",
        { "data-is": t("health.last_short") },
        machine.last_heard ? timeElement(machine.last_heard, { absolute: false }) : t("health.never"),
      ),
      h("td", { class: "num", "data-is": t("channels.near") }, levelText(machine.window?.level_near_dbfs)),
      h("td", { class: "num", "data-is": t("channels.far") }, levelText(machine.window?.level_far_dbfs)),
    );
  return panel(
    "microphones",
    t("health.microphones"),
    table(
      [
        t("health.machine"),
        t("health.microphones"),
        t("health.last"),
        [t("levels.near"), "num"],
        [t("levels.far"), "num"],
      ],
      machines.map(row),
    ),
    h("p", { class: "small" }, t("health.levels")),
  );
}

const EXAMPLES = { url: "ntfy://ntfy.sh/north-hall-7f3a", quiet: spanText("22:00-06:00, Sat-Sun") };

// The channels to people, each with a test, and a form that adds one. `after` loads the page again.
function messages(channels, machines, after) {
  const sendTest = (channel) => async () => (await post(apiPath("channels", channel.name, "test"))).message;
  const forget = (channel) => async (who) => {
    await remove(`${apiPath("channels", channel.name)}?who=${encodeURIComponent(who)}`);
    return t("health.removed", { name: channel.name });
  };
  const names = new Map(machines.map((machine) => [machine.id, machine.name]));
  const told = ({ events, machines }) =>
    t("health.told", {
      events: events.map((kind) => t(`told.${kind}`)).join(", "),
      machines: machines.map((id) => names.get(id) || id).join(", ") || t("health.all_machines"),
    });
  const row = (channel) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, channel.name, h("span", { class: "small" }, ` ${channel.service}`)),
      h("td", { "data-is": t("health.about_short") }, told(channel)),
      h(
        "td",
        { "data-is": t("health.now_short") },
        channel.problem
          ? h("span", { class: "warning" }, asSentence(channel.problem))
          : channel.quiet_until
            ? parts("health.quiet_until", { time: timeElement(channel.quiet_until) })
            : t("health.ready"),
      ),
      h(
        "td",
        {},
        h(
          "div",
          { class: "row" },
          actionButton(t("health.test"), sendTest(channel)),
          channel.added && actionButton(t("health.remove"), forget(channel), { after }),
        ),
      ),
    );
  return panel(
    "messages",
    t("health.messages"),
    channels.length
      ? table([t("health.channel"), t("health.about"), t("health.now"), t("health.do")], channels.map(row))
      : h("p", {}, t("health.no_channel")),
  );
}

// What is said of the report that comes by itself (null: there is none). `after` loads the page again.
function nextReport(report, after) {
  if (!report) return panel("reports", t("health.reports"), h("p", {}, t("health.no_report")));
  const key = report.span === "day" ? "health.next_day" : "health.next_week";
  const end = async (who) => {
    await remove(`/v1/report/schedule?who=${encodeURIComponent(who)}`);
    return t("health.report_ended");
  };
  return panel(
    "reports",
    t("health.reports"),
    h("p", {}, parts(key, { time: timeElement(report.next), to: report.to.join(", ") })),
    report.set_here
      ? h("p", { class: "row" }, actionButton(t("health.end_report"), end, { after }))
      : h("p", { class: "small" }, t("health.report_fixed")),
  );
}

// The form that sets the report; it outlives the redrawing of the page.
function reportForm(after) {
  const select = (options) => h("select", {}, options.map(([value, text]) => h("option", { value }, text)));
  const every = select([["week", t("health.every_week")], ["day", t("health.every_day")]]);
  const on = select(DAYS.map((day) => [day, spanText(day)]));
  const at = h("input", { type: "time", value: "07:00", required: true });
  const form = select([["html", t("health.as_page")], ["xlsx", t("health.as_workbook")]]);
  const [channels, machines] = [choices(t("health.report_to")), choices(t("health.report_of"))];
  const weekly = h("label", {}, t("health.on"), on);
  every.addEventListener("change", () => (weekly.hidden = every.value === "day"));
  const save = async (who) => {
    if (!channels.read().length) return t("health.no_receiver");
    const span = { every: every.value, on: on.value, at: at.value, format: form.value };
    await update("/v1/report/schedule", { ...span, channels: channels.read(), machines: machines.read(), who });
    return t("health.report_set");
  };
  const fields = h(
    "form",
    { class: "new-machine", onsubmit: (event) => event.preventDefault() },
    h("label", {}, t("health.every"), every),
    weekly,
    h("label", {}, t("health.at"), at),
    channels.element,
    machines.element,
    h("label", {}, t("health.as"), form),
    h("p", { class: "row" }, actionButton(t("health.set_report"), save, { main: true, after })),
  );
  const element = h("details", { class: "panel" }, h("summary", {}, t("health.report_title")), fields);
  const draw = (ofMachines, ofChannels, report) => {
    element.hidden = !ofChannels.length || Boolean(report && !report.set_here);
    machines.draw(ofMachines);
    channels.draw(ofChannels, ofChannels.length === 1);
  };
  return { element, draw };
}

// Check boxes that keep what is checked when they are drawn anew.
function choices(legend) {
  const boxes = h("div", {});
  const element = h("fieldset", {}, h("legend", {}, legend), boxes);
  const read = () => [...boxes.querySelectorAll("input:checked")].map((box) => box.value);
  let drawn = "";
  const draw = (items, all = false) => {
    if (drawn === JSON.stringify(items)) return;
    drawn = JSON.stringify(items);
    const checked = read();
    const box = ([value, text]) =>
      h(
        "label",
        { class: "choice" },
        h("input", { type: "checkbox", value, checked: all || checked.includes(value) }),
        h("span", {}, text),
      );
    replaceContent(boxes, items.map(box));
  };
  return { element, read, draw };
}

// The form that adds a channel; it outlives the redrawing of the page.
function channelForm(after) {
  const field = (name, attributes) => h("input", { type: "text", name, autocomplete: "off", ...attributes });
  const name = field("channel", {
    required: true,
    maxlength: 64,
    pattern: "[A-Za-z0-9][A-Za-z0-9_\\-]*",
    placeholder: t("health.name_example"),
  });
  const url = field("url", { required: true, placeholder: EXAMPLES.url });
  const quiet = field("quiet", { placeholder: EXAMPLES.quiet });
  const machines = choices(t("health.only"));
  const list = (input) => input.value.split(/[,;]\s*/).filter(Boolean);
  const add = async (who) => {
    if (!form.reportValidity()) return "";
    const body = { url: url.value.trim(), quiet: list(quiet).map(spanOf), machines: machines.read(), who };
    await update(apiPath("channels", name.value), body);
    const done = t("health.added", { name: name.value });
    form.reset();
    return done;
  };
  const form = h(
    "form",
    { class: "new-machine", onsubmit: (event) => event.preventDefault() },
    h("label", {}, t("health.name"), name),
    h("label", {}, t("health.address"), url),
    h("p", { class: "small" }, t("health.more")),
    h("label", {}, t("health.quiet"), quiet),
    machines.element,
    h("p", { class: "row" }, actionButton(t("health.add"), add, { main: true, after })),
  );
  const element = h("details", { class: "panel" }, h("summary", {}, t("health.add_title")), form);
  return { element, draw: machines.draw };
}

function server(health) {
  const link = (path) => h("a", { href: path }, path);
  const windows = { count: health.windows, dropped: health.dropped };
  const history = { size: size(health.history_bytes), free: size(health.free_bytes) };
  return panel(
    "server",
    t("health.server"),
    facts([
      [t("health.version"), `nearfar ${health.version}`],
      [t("health.started"), timeElement(health.started)],
      [t("health.windows"), t("health.windows_are", windows)],
      [t("health.history"), t("health.history_is", history)],
      [t("health.uploads"), t("health.uploads_are", { count: health.uploads_now })],
      [t("health.decoders"), t("health.decoders_are", { count: health.decoders_replaced })],
      [t("health.listeners"), number(health.listeners)],
      [t("health.programs"), h("span", {}, link("/metrics"), ", ", link("/openapi.json"), ", ", link("/readyz"))],
    ]),
  );
}

function size(bytes) {
  return bytes >= 1e9 ? `${fixed(bytes / 1e9, 1)} GB` : `${fixed(bytes / 1e6, 0)} MB`;
}
