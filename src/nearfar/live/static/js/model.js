// What a machine's model was fitted on, and its set-point: how many false alarms a choice is expected to make.

import { act } from "./acts.js";
import { at, change, get, post } from "./api.js";
import { onWidth } from "./chart.js";
import { crumbs, empty, h, put, s, title } from "./dom.js";
import { sounds } from "./listen.js";
import { listen } from "./stream.js";
import { stamp } from "./time.js";
import { action, often, score, sentence } from "./words.js";

const H = 260, LEFT = 96, RIGHT = 16, TOP = 18, BOTTOM = 44;

export async function show(main, id) {
  let model = await get(at("machines", id, "model"));
  title(`Model of ${model.name}`);
  const body = h("div", {});
  put(main, crumbs(["Machines", "/"], [model.name, `/machine/${encodeURIComponent(id)}`], ["Model"]), h("div", { class: "title" }, h("h1", {}, `Model of ${model.name}`)), body);
  const reload = async () => { model = await get(at("machines", id, "model")); draw(); };
  const draw = () => put(body,
    h("div", { class: "pair" }, setPoint(id, model, reload), card(model)),
    odd(id, model), trail(model, reload));
  draw();
  listen({ audit: (a) => { if (a.machine === id && !body.contains(document.activeElement)) reload().catch(() => {}); }, resync: () => {} });
}

function card(model) {
  const rows = [
    ["Fitted on", `${model.normals.toLocaleString()} normal recordings, ${model.minutes.toFixed(1)} minutes`],
    ...model.domains.map((d) => [d.name === "source" ? "As first fitted" : "Other way to run", `${d.normals.toLocaleString()} recordings`]),
    ["Microphones", model.far === null ? `near only (channel ${model.near})` : `near (channel ${model.near}) and far (channel ${model.far})`],
    ["Window", `${model.clip_seconds} s`],
    ["Method", model.why],
  ];
  return h("section", { class: "panel" }, h("h2", {}, "What it was fitted on"), h("dl", {}, rows.map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)])));
}

function setPoint(id, model, after) {
  const point = model.set_point;
  const input = h("input", { type: "number", id: "week", min: 0.001, max: 1e6, step: "any", required: true, value: Number(point.false_alarms_per_week.toPrecision(3)), "aria-describedby": "means" });
  const means = h("p", { id: "means", class: "small", role: "status" }), drawing = h("figure", {});
  const say = () => {
    const value = valueAt(model.curve, Number(input.value));
    put(drawing, curve(model, Number(input.value), value, drawing.clientWidth), h("figcaption", {}, "Grey: rarer than so many normal recordings can show. There the line is an estimate, on the careful side."));
    if (!(Number(input.value) > 0)) means.textContent = "Give a number above 0.";
    else means.textContent = `At most ${often(Number(input.value))}: alarm above ${score(value)}.${Number(input.value) < model.backed_per_week ? " That is rarer than the normal recordings can show: an estimate, and faint faults may stay below it." : ""}`;
  };
  input.addEventListener("input", say);
  onWidth(drawing, say);
  say();
  return h("section", { class: "panel", "aria-labelledby": "point" }, h("h2", { id: "point" }, "Set-point"),
    h("p", { class: "lead" }, `Alarm above ${score(point.value)}`),
    point.promise.map((line) => h("p", {}, sentence(line))),
    h("p", { class: "small" }, "For a measured figure: more normal recordings, or, after some days of listening, ", h("code", {}, "nearfar history set-point"), "."),
    drawing,
    h("label", { for: "week" }, "False alarms a week that you would accept"),
    h("div", { class: "row" }, input, act("Change the set-point", async (name) => {
      if (!input.reportValidity()) return "Nothing was changed.";
      const answer = await change(at("machines", id, "threshold"), { false_alarms_per_week: Number(input.value), who: name });
      return `Alarm above ${score(answer.value)} from now on.`;
    }, { main: true, after })), means);
}

// The set-point for so many false alarms a week: linear between the points of the curve, in their logarithm.
function valueAt(points, perWeek) {
  const x = Math.log(perWeek), at = points.map((p) => Math.log(p.false_alarms_per_week));
  if (!(perWeek > 0)) return null;
  for (let i = 1; i < points.length; i++) {
    if ((x <= at[i - 1] && x >= at[i]) || i === points.length - 1 || (i === 1 && x > at[0])) {
      return points[i - 1].value + ((points[i].value - points[i - 1].value) * (x - at[i - 1])) / (at[i] - at[i - 1]);
    }
  }
  return points[0].value;
}

// False alarms (logarithmic, down) against the set-point (to the right); grey where the normals cannot back it.
function curve(model, perWeek, chosen, width) {
  const W = Math.max(300, Math.min(700, width || 520));
  const points = model.curve, low = points[0].value, high = Math.max(points.at(-1).value, low + 1);
  const most = Math.log(points[0].false_alarms_per_week), least = Math.log(points.at(-1).false_alarms_per_week);
  const x = (v) => LEFT + ((W - LEFT - RIGHT) * (v - low)) / (high - low), y = (w) => TOP + ((H - TOP - BOTTOM) * (most - Math.log(w))) / (most - least);
  const svg = s("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `Expected false alarms against the set-point, from ${often(points[0].false_alarms_per_week)} at ${score(low)} to ${often(points.at(-1).false_alarms_per_week)} at ${score(high)}` });
  const edge = Math.min(H - BOTTOM, Math.max(TOP, y(model.backed_per_week)));
  svg.append(s("rect", { class: "beyond", x: LEFT, y: edge, width: W - LEFT - RIGHT, height: H - BOTTOM - edge }));
  for (const [w, text] of [[700, "100 a day"], [70, "10 a day"], [7, "1 a day"], [1, "1 a week"], [12 / 52.18, "1 a month"], [1 / 52.18, "1 a year"], [0.1 / 52.18, "1 in 10 years"]]) {
    if (Math.log(w) > most || Math.log(w) < least) continue;
    svg.append(s("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: y(w), y2: y(w) }), s("text", { x: LEFT - 8, y: y(w) + 4, "text-anchor": "end" }, text));
  }
  const step = [0.5, 1, 2, 5, 10, 20, 50, 100].find((size) => (high - low) / size <= 8) || 500;
  for (let v = Math.ceil(low / step) * step; v <= high; v += step) svg.append(s("text", { x: x(v), y: H - BOTTOM + 18, "text-anchor": "middle" }, score(v)));
  svg.append(s("text", { x: (LEFT + W - RIGHT) / 2, y: H - 6, "text-anchor": "middle" }, "set-point"),
    s("line", { class: "axis", x1: LEFT, x2: W - RIGHT, y1: H - BOTTOM, y2: H - BOTTOM }),
    s("path", { class: "line", d: points.map((p, i) => `${i ? "L" : "M"}${x(p.value).toFixed(1)} ${y(p.false_alarms_per_week).toFixed(1)}`).join("") }));
  const current = x(Math.min(high, Math.max(low, model.set_point.value)));
  svg.append(s("line", { class: "limit", x1: current, x2: current, y1: TOP, y2: H - BOTTOM }), s("text", { class: "limit-text", x: current > W - 90 ? current - 6 : current + 6, y: TOP + 10, "text-anchor": current > W - 90 ? "end" : "start" }, "now"));
  if (chosen !== null && chosen >= low && chosen <= high && Math.log(perWeek) <= most && Math.log(perWeek) >= least) svg.append(s("circle", { class: "at", cx: x(chosen), cy: y(perWeek), r: 5.5 }));
  return svg;
}

function odd(id, model) {
  const groups = model.odd_ones_out.map((o) => ({ label: o.name, note: `${score(o.score)} standard deviations out`,
    sounds: o.playable ? o.channels.map((name) => ({ name, src: `${at("machines", id, "normals", o.index, name)}?gain_db=${model.gain_db}` })) : [] }));
  return h("section", { class: "panel", "aria-labelledby": "odd" }, h("h2", { id: "odd" }, "The most unusual normal recordings"), h("p", {}, "Listen to them: are they really normal? What is not should not have been fitted on."), sounds(groups));
}

function trail(model, after) {
  const items = model.audit.map((a) => h("li", {}, h("div", { class: "row" }, h("span", {}, stamp(a.at), ` ${a.who}: `, a.event_id ? h("a", { href: `/event/${a.event_id}` }, action(a.action)) : action(a.action), a.text && h("span", { class: "small" }, ` ${a.text}`)),
    a.can_undo && act("Take it back", async (name) => { await post(at("audit", a.id, "undo"), { who: name }); return "Taken back."; }, { after })),
    a.note && h("p", { class: "say" }, sentence(a.note))));
  return h("section", { class: "panel", "aria-labelledby": "trail" }, h("h2", { id: "trail" }, "Who changed what"), items.length ? h("ul", { class: "plain" }, items) : empty("Nothing was changed since it was fitted."));
}
