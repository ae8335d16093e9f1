// The health of the microphones, the history and the server.

import { actionButton } from "./actions.js";
import { apiPath, get, post, remove, update } from "./api.js";
import { badge, facts, h, note, panel, replaceContent, setTitle, table } from "./dom.js";
import { eventTable } from "./machine.js";
import { subscribe, throttle } from "./stream.js";
import { now, timeElement } from "./time.js";
import { asSentence, levelText, stateLabel } from "./words.js";

export async function show(main) {
  setTitle("Health");
  const body = h("div", {});
  const adding = channelForm(() => load());
  replaceContent(main, h("div", { class: "title" }, h("h1", {}, "Health")), body, adding);
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
      panel("problems", "Microphone problems in the last 30 days", eventTable(found.events, { machine: true })),
      messages(people.channels, health.machines, load),
      health.report && nextReport(health.report),
      server(health),
    );
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

const WEAKER = "Near is much weaker than far: are they swapped, or is near too far from the machine?";
const WEAKER_DB = 6;
const isWeaker = (w) => Boolean(w && w.level_far_dbfs !== null && w.level_far_dbfs - w.level_near_dbfs > WEAKER_DB);

function microphones(machines) {
  if (!machines.length) return note("There is no machine yet.");
  const fine = { word: "Fine", sign: "fine", kind: "fine" };
  const problem = { word: "Problem", sign: "cross", kind: "mute" };
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
        isWeaker(machine.window) && h("p", { class: "warning" }, WEAKER),
      ),
      h(
        "td",
        { "data-is": "last sound" },
        machine.last_heard ? timeElement(machine.last_heard, { absolute: false }) : "never",
      ),
      h("td", { class: "num", "data-is": "near" }, levelText(machine.window?.level_near_dbfs)),
      h("td", { class: "num", "data-is": "far" }, levelText(machine.window?.level_far_dbfs)),
    );
  return panel(
    "microphones",
    "Microphones",
    table(["Machine", "Microphones", "Last sound", ["Near", "num"], ["Far", "num"]], machines.map(row)),
    h(
      "p",
      { class: "small" },
      "Levels are in dB of full scale, in the last window: about −60 to −20 is usual, below −90 is silence.",
    ),
  );
}

const CHANNELS = {
  none: "Nobody is told of alarms yet. Add a channel: the free app ntfy is the quickest, an address such as ntfy://ntfy.sh/ and a name that nobody guesses.",
  where: "ntfy://ntfy.sh/north-hall-7f3a",
  more: "Telegram, Slack, Teams, Discord, Pushover, e-mail: tgram://, slack://, msteams://, discord://, pover://, mailto://; what follows is described at github.com/caronc/apprise.",
  quiet: "22:00-06:00, Sat-Sun",
};

// The channels to people, each with a test, and a form that adds one. `after` loads the page again.
function messages(channels, machines, after) {
  const sendTest = (channel) => async () => (await post(apiPath("channels", channel.name, "test"))).message;
  const forget = (channel) => async (who) => {
    await remove(`${apiPath("channels", channel.name)}?who=${encodeURIComponent(who)}`);
    return `${channel.name} is removed.`;
  };
  const names = new Map(machines.map((machine) => [machine.id, machine.name]));
  const row = (channel) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, channel.name, h("span", { class: "small" }, ` ${channel.service}`)),
      h(
        "td",
        { "data-is": "about" },
        `${channel.events.join(", ")} of ${channel.machines.map((id) => names.get(id) || id).join(", ") || "all machines"}`,
      ),
      h(
        "td",
        { "data-is": "now" },
        channel.problem
          ? h("span", { class: "warning" }, asSentence(channel.problem))
          : channel.quiet_until
            ? ["Quiet until ", timeElement(channel.quiet_until)]
            : "Ready",
      ),
      h(
        "td",
        {},
        h(
          "div",
          { class: "row" },
          actionButton("Send a test", sendTest(channel)),
          channel.added && actionButton("Remove", forget(channel), { after }),
        ),
      ),
    );
  return panel(
    "messages",
    "Messages to people",
    channels.length ? table(["Channel", "About", "Now", "Do"], channels.map(row)) : h("p", {}, CHANNELS.none),
  );
}

function nextReport({ next, span, to }) {
  return panel("reports", "Reports", h("p", {}, `The next report of the ${span} comes `, timeElement(next), `, to ${to.join(", ")}.`));
}

// The form that adds a channel; it outlives the redrawing of the page.
function channelForm(after) {
  const field = (name, attributes) => h("input", { type: "text", name, autocomplete: "off", ...attributes });
  const name = field("channel", {
    required: true,
    maxlength: 64,
    pattern: "[A-Za-z0-9][A-Za-z0-9_\\-]*",
    placeholder: "shift",
  });
  const url = field("url", { required: true, placeholder: CHANNELS.where });
  const quiet = field("quiet", { placeholder: CHANNELS.quiet });
  const machines = field("machines", { placeholder: "all" });
  const list = (input) => input.value.split(/[,;]\s*/).filter(Boolean);
  const add = async (who) => {
    if (!form.reportValidity()) return "";
    const body = { url: url.value.trim(), quiet: list(quiet), machines: list(machines), who };
    await update(apiPath("channels", name.value), body);
    const done = `${name.value} is added. Send a test.`;
    form.reset();
    return done;
  };
  const form = h(
    "form",
    { class: "new-machine", onsubmit: (event) => event.preventDefault() },
    h("label", {}, "Name of the channel", name),
    h("label", {}, "Address", url),
    h("p", { class: "small" }, CHANNELS.more),
    h("label", {}, "Quiet hours, in which messages wait (may stay empty)", quiet),
    h("label", {}, "Only these machines, by their ids (may stay empty)", machines),
    h("p", { class: "row" }, actionButton("Add the channel", add, { main: true, after })),
  );
  return h("details", { class: "panel" }, h("summary", {}, "Add a channel to people"), form);
}

function server(health) {
  const link = (path) => h("a", { href: path }, path);
  const dropped = `${health.dropped.toLocaleString()} dropped because scoring fell behind`;
  return panel(
    "server",
    "This server",
    facts([
      ["Version", `nearfar ${health.version}`],
      ["Running since", timeElement(health.started)],
      ["Windows scored", `${health.windows.toLocaleString()}, ${dropped}`],
      ["History", `${size(health.history_bytes)} on disk, ${size(health.free_bytes)} free there`],
      ["Uploads", `${health.uploads_now} in progress or waiting`],
      ["Decoders restarted", `${health.decoders_replaced} times, by damaged recordings`],
      ["Open pages", String(health.listeners)],
      ["For programs", h("span", {}, link("/metrics"), ", ", link("/openapi.json"), ", ", link("/readyz"))],
    ]),
  );
}

function size(bytes) {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6).toLocaleString()} MB`;
}
