// Is everything alive: microphones, windows, the history, the server itself.

import { get } from "./api.js";
import { badge, empty, h, put, title } from "./dom.js";
import { table } from "./machine.js";
import { listen, soon } from "./stream.js";
import { now, stamp } from "./time.js";
import { level, sentence, state } from "./words.js";

export async function show(main) {
  title("Health");
  const body = h("div", {});
  put(main, h("div", { class: "title" }, h("h1", {}, "Health")), body);
  const load = async () => {
    const [health, found] = await Promise.all([get("/v1/health"), get(`/v1/events?kind=health&limit=20&since=${now() - 30 * 86400}`)]);
    const focused = document.activeElement?.getAttribute("href");
    put(body, health.problems.map((text) => h("p", { class: "panel trouble", role: "alert" }, sentence(text))), microphones(health.machines),
      h("section", { class: "panel", "aria-labelledby": "trouble" }, h("h2", { id: "trouble" }, "Microphone trouble in the last 30 days"), table(found.events, { machine: true })),
      server(health));
    if (focused) body.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  };
  await load();
  const later = soon(() => load().catch(() => {}), 4000);
  listen({ state: later, score: later, event: () => load().catch(() => {}), resync: () => load().catch(() => {}) });
  later();
}

function microphones(machines) {
  if (!machines.length) return empty("No machine is watched yet.");
  const rows = machines.map((m) => h("tr", {},
    h("th", { scope: "row" }, h("a", { href: `/machine/${encodeURIComponent(m.id)}` }, m.name)),
    h("td", {}, m.health.length ? badge({ word: "Look at it", sign: "cross", kind: "mute" }) : m.last_heard ? badge({ word: "Fine", sign: "fine", kind: "fine" }) : badge(state(m)), m.health.map((t) => h("p", { class: "small" }, sentence(t)))),
    h("td", { "data-is": "last heard" }, m.last_heard ? stamp(m.last_heard, { absolute: false }) : "never"),
    h("td", { class: "num", "data-is": "near" }, level(m.score?.level_near_dbfs)),
    h("td", { class: "num", "data-is": "far" }, level(m.score?.level_far_dbfs))));
  const heads = [["Machine"], ["Microphones"], ["Last heard"], ["Near", "num"], ["Far", "num"]];
  return h("section", { class: "panel", "aria-labelledby": "mics" }, h("h2", { id: "mics" }, "Microphones"), h("div", { class: "wide" }, h("table", { class: "folds" },
    h("thead", {}, h("tr", {}, heads.map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))), h("tbody", {}, rows))),
    h("p", { class: "small" }, "Levels are dB of full scale in the last window: about −60 to −20 is usual, below −90 is silence."));
}

function server(health) {
  const rows = [
    ["Version", `nearfar ${health.version}`],
    ["Running since", stamp(health.started)],
    ["Windows scored", `${health.windows.toLocaleString()}, ${health.dropped.toLocaleString()} dropped because scoring fell behind`],
    ["History", `${size(health.history_bytes)} on disk, ${size(health.free_bytes)} free there`],
    ["Uploads", `${health.uploads_now} under way or waiting, ${health.decoders_replaced} damaged recordings had to be given up`],
    ["Pages looking on", String(health.listeners)],
    ["For programs", h("span", {}, h("a", { href: "/metrics" }, "/metrics"), ", ", h("a", { href: "/openapi.json" }, "/openapi.json"), ", ", h("a", { href: "/readyz" }, "/readyz"))],
  ];
  return h("section", { class: "panel", "aria-labelledby": "server" }, h("h2", { id: "server" }, "This server"), h("dl", {}, rows.map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)])));
}

function size(bytes) {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6).toLocaleString()} MB`;
}
