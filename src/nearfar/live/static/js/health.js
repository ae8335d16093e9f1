// The health of the microphones, the history and the server.

import { actionButton } from "./actions.js";
import { apiPath, get, post } from "./api.js";
import { badge, facts, h, note, panel, replaceContent, setTitle, table } from "./dom.js";
import { eventTable } from "./machine.js";
import { subscribe, throttle } from "./stream.js";
import { now, timeElement } from "./time.js";
import { asSentence, levelText, stateLabel } from "./words.js";

export async function show(main) {
  setTitle("Health");
  const body = h("div", {});
  replaceContent(main, h("div", { class: "title" }, h("h1", {}, "Health")), body);
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
      messages(people.channels),
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

// The channels to people, each with a test.
function messages(channels) {
  if (!channels.length)
    return panel(
      "messages",
      "Messages to people",
      note("There is no channel yet. plant.toml takes ntfy, Telegram, Slack, Teams, Discord, Pushover and e-mail as [notify.NAME]."),
    );
  const send = (channel) => async () => {
    const done = await post(apiPath("channels", channel.name, "test"), {});
    return done.message;
  };
  const row = (channel) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, channel.name, h("span", { class: "small" }, ` `)),
      h("td", { "data-is": "about" }, ` of `),
      h(
        "td",
        { "data-is": "now" },
        channel.problem
          ? h("span", { class: "warning" }, asSentence(channel.problem))
          : channel.quiet_until
            ? ["Quiet until ", timeElement(channel.quiet_until)]
            : "Ready",
      ),
      h("td", {}, actionButton("Send a test", send(channel))),
    );
  return panel("messages", "Messages to people", table(["Channel", "About", "Now", "Test"], channels.map(row)));
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
