// The model of a machine: its normal recordings, its set-point, and the false alarms that other set-points would cause.

import { actionButton, auditList } from "./actions.js";
import { apiPath, get, update } from "./api.js";
import { onWidth } from "./chart.js";
import { breadcrumbs, facts, h, note, panel, replaceContent, s, setTitle } from "./dom.js";
import { player } from "./player.js";
import { subscribe, throttle } from "./stream.js";
import { asSentence, frequencyText, scoreText } from "./words.js";

const H = 260;
const LEFT = 96;
const RIGHT = 16;
const TOP = 18;
const BOTTOM = 44;
const FREQUENCIES = [
  [700, "100 a day"],
  [70, "10 a day"],
  [7, "1 a day"],
  [1, "1 a week"],
  [12 / 52.18, "1 a month"],
  [1 / 52.18, "1 a year"],
  [0.1 / 52.18, "1 in 10 years"],
]; // [per week, label]

const LAMPS =
  "Two lamps: an alarm is meant to be rare in a new session, too (other noise, load, season); unusual means rare for a session that the normal recordings know.";

export async function show(main, id) {
  let model = await get(apiPath("machines", id, "model"));
  setTitle(`Model of ${model.name}`);
  const body = h("div", {});
  replaceContent(
    main,
    breadcrumbs(["Machines", "/"], [model.name, `/machine/${encodeURIComponent(id)}`], ["Model"]),
    h("div", { class: "title" }, h("h1", {}, `Model of ${model.name}`)),
    body,
  );
  const reload = async () => {
    model = await get(apiPath("machines", id, "model"));
    draw();
  };
  const draw = () => {
    const audit = model.audit.length
      ? auditList(model.audit, reload, "Taken back.")
      : note("Nothing was changed since the model was fitted.");
    replaceContent(
      body,
      h("div", { class: "pair" }, setPoint(id, model, reload), modelFacts(model)),
      oddNormals(id, model),
      panel("audit", "Who changed what", audit),
    );
  };
  draw();
  subscribe({
    audit: (message) => {
      if (message.machine === id && !body.contains(document.activeElement)) reload().catch(() => {});
    },
    resync: () => {},
  });
}

function modelFacts(model) {
  const domains = { source: "Usual operating mode", target: "Other operating mode" };
  const near = `near (channel ${model.near})`;
  return panel(
    "fitted",
    "What it was fitted on",
    facts([
      ["Fitted on", `${model.normals.toLocaleString()} normal recordings, ${model.minutes.toFixed(1)} minutes`],
      ...model.domains.map((domain) => [domains[domain.name], `${domain.normals.toLocaleString()} recordings`]),
      ["Microphones", model.far === null ? `only ${near}` : `${near} and far (channel ${model.far})`],
      ["Behind them", model.backing],
      ["Window", `${model.clip_seconds} s`],
      ["Method", model.why],
    ]),
    model.remarks.map((text) => note(asSentence(text))),
  );
}

function setPoint(id, model, after) {
  const point = model.set_point;
  const input = h("input", {
    type: "number",
    id: "week",
    min: 0.001,
    max: 1e6,
    step: "any",
    required: true,
    value: Number(point.false_alarms_per_week.toPrecision(3)),
    "aria-describedby": "means",
  });
  const means = h("p", { id: "means", class: "small", role: "status" });
  const figure = h("figure", {});
  let asked = 0;
  // What the wish means, as the server says: the same set-point that "Change the set-point" then makes.
  const draw = async () => {
    const perWeek = Number(input.value);
    const current = ++asked;
    const body = { false_alarms_per_week: perWeek, dry_run: true };
    const wished = perWeek > 0 ? await update(apiPath("machines", id, "threshold"), body).catch(() => null) : null;
    if (current !== asked) return;
    const caption = "In the grey area the normal recordings are too few: the line is a cautious estimate.";
    replaceContent(
      figure,
      costCurve(model, perWeek, wished && wished.value, figure.clientWidth),
      h("figcaption", {}, caption),
    );
    if (!wished) {
      means.textContent = "Give a number above 0, and below the number of windows a week.";
      return;
    }
    const said = [`At most ${frequencyText(perWeek)}: alarm above ${scoreText(wished.value)}`, wished.price.text];
    if (wished.beyond_normals) said.push(...wished.promise.slice(-2));
    means.textContent = said.map(asSentence).join(" ");
  };
  const save = async (name) => {
    if (!input.reportValidity()) return "Nothing was changed.";
    const body = { false_alarms_per_week: Number(input.value), who: name };
    const answer = await update(apiPath("machines", id, "threshold"), body);
    return `Alarm above ${scoreText(answer.value)} from now on: ${asSentence(answer.price.text)}`;
  };
  const drawSoon = throttle(draw, 300);
  input.addEventListener("input", drawSoon);
  onWidth(figure, draw);
  draw();
  return panel(
    "set-point",
    "Set-point",
    h(
      "p",
      { class: "lead" },
      `Alarm above ${scoreText(point.value)}, `,
      h("span", { class: "odd-text" }, `unusual above ${scoreText(point.unusual_value)}`),
    ),
    point.promise.map((line) => h("p", {}, asSentence(line))),
    h("p", { class: "odd-text" }, asSentence(point.unusual_promise)),
    h("p", { class: "small" }, LAMPS),
    h(
      "p",
      { class: "small" },
      "For a measured figure, fit with more normal recordings, or after some days run ",
      h("code", {}, "nearfar history set-point"),
      ".",
    ),
    figure,
    h("label", { for: "week" }, "False alarms a week that you would accept"),
    h("div", { class: "row" }, input, actionButton("Change the set-point", save, { main: true, after })),
    means,
  );
}

// False alarms (logarithmic, downwards) against the set-point; grey where the normal recordings are too few.
function costCurve(model, perWeek, chosen, width) {
  const W = Math.max(300, Math.min(700, width || 520));
  const points = model.curve;
  const low = points[0].value;
  const high = Math.max(points.at(-1).value, low + 1);
  const most = Math.log(points[0].false_alarms_per_week);
  const least = Math.log(points.at(-1).false_alarms_per_week);
  const x = (value) => LEFT + ((W - LEFT - RIGHT) * (value - low)) / (high - low);
  const y = (perWeek) => TOP + ((H - TOP - BOTTOM) * (most - Math.log(perWeek))) / (most - least);
  const [from, to] = [points[0], points.at(-1)].map(
    (p) => `${frequencyText(p.false_alarms_per_week)} at ${scoreText(p.value)}`,
  );
  const label = `Expected false alarms against the set-point, from ${from} to ${to}`;
  const svg = s("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": label });
  const edge = Math.min(H - BOTTOM, Math.max(TOP, y(model.backed_per_week)));
  svg.append(s("rect", { class: "beyond", x: LEFT, y: edge, width: W - LEFT - RIGHT, height: H - BOTTOM - edge }));
  for (const [w, text] of FREQUENCIES) {
    if (Math.log(w) > most || Math.log(w) < least) continue;
    svg.append(
      s("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: y(w), y2: y(w) }),
      s("text", { x: LEFT - 8, y: y(w) + 4, "text-anchor": "end" }, text),
    );
  }
  const step = [0.5, 1, 2, 5, 10, 20, 50, 100].find((size) => (high - low) / size <= 8) || 500;
  for (let v = Math.ceil(low / step) * step; v <= high; v += step)
    svg.append(s("text", { x: x(v), y: H - BOTTOM + 18, "text-anchor": "middle" }, scoreText(v)));
  svg.append(
    s("text", { x: (LEFT + W - RIGHT) / 2, y: H - 6, "text-anchor": "middle" }, "set-point"),
    s("line", { class: "axis", x1: LEFT, x2: W - RIGHT, y1: H - BOTTOM, y2: H - BOTTOM }),
    s("path", {
      class: "line",
      d: points
        .map((p, i) => `${i ? "L" : "M"}${x(p.value).toFixed(1)} ${y(p.false_alarms_per_week).toFixed(1)}`)
        .join(""),
    }),
  );
  const current = x(Math.min(high, Math.max(low, model.set_point.value)));
  svg.append(
    s("line", { class: "limit", x1: current, x2: current, y1: TOP, y2: H - BOTTOM }),
    s(
      "text",
      {
        class: "limit-text",
        x: current > W - 90 ? current - 6 : current + 6,
        y: TOP + 10,
        "text-anchor": current > W - 90 ? "end" : "start",
      },
      "now",
    ),
  );
  if (chosen !== null && chosen >= low && chosen <= high && Math.log(perWeek) <= most && Math.log(perWeek) >= least)
    svg.append(s("circle", { class: "at", cx: x(chosen), cy: y(perWeek), r: 5.5 }));
  return svg;
}

function oddNormals(id, model) {
  const source = (odd, name) => `${apiPath("machines", id, "normals", odd.index, name)}?gain_db=${model.gain_db}`;
  const groups = model.odd_ones_out.map((odd) => ({
    label: odd.name,
    hint: `score ${scoreText(odd.score)}`,
    sounds: odd.playable ? odd.channels.map((name) => ({ name, src: source(odd, name) })) : [],
  }));
  return panel(
    "odd",
    "The most unusual normal recordings",
    h("p", {}, "Listen to them: are they really normal? If one is not, fit the model again without it."),
    player(groups),
  );
}
