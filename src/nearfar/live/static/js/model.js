// The model of a machine: its normal recordings, its set-point, and the false alarms that other set-points would cause.

import { actionButton, auditList } from "./actions.js";
import { apiPath, get, savedName, update } from "./api.js";
import { onWidth } from "./chart.js";
import { breadcrumbs, facts, h, note, panel, replaceContent, s, setTitle } from "./dom.js";
import { dropZone, uploadPath } from "./drop.js";
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

const TEXT = {
  question: "How many false alarms do you accept?",
  choices: [
    [70, "10 a day"],
    [7, "1 a day"],
    [1, "1 a week"],
    [7 / 30.44, "1 a month"],
  ],
  asIs: "As now",
  other: "Another number a week",
  wait: "…",
  estimate: " (estimated)",
  beyond: "Estimated: so few false alarms cannot be shown by these normal recordings, and faint faults may stay below.",
  above: (value) => `alarm above ${value}`,
  curve: "The curve, and the details",
  normals: "Normal recordings",
  normalsHow:
    "What nearfar takes for normal, the most unusual first. Listen: what is not normal is taken out, and what was recorded together has one session.",
  total: (shown, n) => (shown < n ? `The ${shown} most unusual of ${n}.` : `${n} recordings.`),
  unlike: "unlike all others",
  remove: "Take out",
  session: "Session of those that are chosen",
  name: "Name the session",
  removeAll: "Take out those that are chosen",
  choose: (name) => `Choose ${name}`,
  none: "Choose recordings first.",
  drop: "Add normal recordings: choose them, or drop them here. You can take that back.",
  addSetup: "More normal recordings: on another day, or of another way to run",
};

export async function show(main, id) {
  let model = await get(apiPath("machines", id, "model"));
  const setup = (await get("/v1/collections")).collections.some((each) => each.id === id);
  setTitle(`Normals and set-point of ${model.name}`);
  const body = h("div", {});
  replaceContent(
    main,
    breadcrumbs(["Machines", "/"], [model.name, `/machine/${encodeURIComponent(id)}`], ["Normals and set-point"]),
    h("div", { class: "title" }, h("h1", {}, `Normals and set-point of ${model.name}`)),
    body,
  );
  const reload = async () => {
    model = await get(apiPath("machines", id, "model"));
    draw();
  };
  const normals = h("div", {});
  const chosen = new Set(); // keys of normals: they stay chosen when the list is drawn anew
  const draw = () => {
    normalList(id, reload, chosen).then(
      (found) => replaceContent(normals, found),
      () => {},
    );
    const audit = model.audit.length
      ? auditList(model.audit, reload, "Taken back.")
      : note("Nothing was changed since the model was fitted.");
    replaceContent(
      body,
      h("div", { class: "pair" }, setPoint(id, model, reload), modelFacts(model, setup)),
      normals,
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

function modelFacts(model, setup) {
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
      ["Window", `${scoreText(model.clip_seconds)} s`],
    ]),
    h("details", {}, h("summary", {}, "How it was chosen"), h("p", {}, asSentence(model.why))),
    model.remarks.map((text) => note(asSentence(text))),
    setup && h("p", {}, h("a", { class: "button", href: `/setup/${encodeURIComponent(model.id)}#2` }, TEXT.addSetup)),
  );
}

function setPoint(id, model, after) {
  const point = model.set_point;
  const other = h("input", {
    type: "number",
    id: "week",
    min: 0.001,
    max: 1e6,
    step: "any",
    "aria-describedby": "means",
  });
  const means = h("p", { id: "means", class: "small", role: "status" });
  const figure = h("figure", {});
  const dryRun = (perWeek) =>
    update(apiPath("machines", id, "threshold"), { false_alarms_per_week: perWeek, dry_run: true }).catch(() => null);
  let wish = null; // false alarms a week, or null: as now
  let asked = 0;
  const say = (wished) => {
    const estimate = wished.beyond_normals ? TEXT.estimate : "";
    return [`${TEXT.above(scoreText(wished.value))}${estimate}`, wished.price.text].map(asSentence).join(" ");
  };
  const choice = (perWeek, label) => {
    const input = h("input", { type: "radio", name: "wish", value: perWeek ?? "", checked: perWeek === null });
    const price = h(
      "span",
      { class: "small" },
      perWeek === null ? ` ${TEXT.above(scoreText(point.value))}` : TEXT.wait,
    );
    input.addEventListener("change", () => choose(perWeek));
    if (perWeek !== null)
      dryRun(perWeek).then((wished) => {
        price.textContent = wished ? ` ${say(wished)}` : "";
      });
    return h("label", { class: "choice" }, input, h("span", {}, label, price));
  };
  // What a wish means, as the server says: the same set-point that "Change the set-point" then makes.
  const choose = async (perWeek) => {
    wish = perWeek;
    const current = ++asked;
    const wished = wish === null ? null : await dryRun(wish);
    if (current !== asked) return;
    means.textContent = wished ? `At most ${frequencyText(wish)}: ${say(wished)}` : "";
    drawCurve(wished);
  };
  const drawCurve = (wished) =>
    replaceContent(
      figure,
      costCurve(model, wish ?? point.false_alarms_per_week, wished && wished.value, figure.clientWidth),
      h("figcaption", {}, "In the grey area the normal recordings are too few: the line is a cautious estimate."),
    );
  const save = async (name) => {
    if (wish === null) return "Nothing was changed.";
    const answer = await update(apiPath("machines", id, "threshold"), { false_alarms_per_week: wish, who: name });
    return `Alarm above ${scoreText(answer.value)} from now on: ${asSentence(answer.price.text)}`;
  };
  const otherSoon = throttle(() => Number(other.value) > 0 && choose(Number(other.value)), 300);
  other.addEventListener("input", otherSoon);
  onWidth(figure, () => drawCurve(null));
  drawCurve(null);
  return panel(
    "set-point",
    "Set-point",
    h(
      "p",
      { class: "lead" },
      `Alarm above ${scoreText(point.value)}, `,
      h("span", { class: "odd-text" }, `unusual above ${scoreText(point.unusual_value)}`),
    ),
    point.promise.map((line) => h("p", { class: "small" }, asSentence(line))),
    h(
      "fieldset",
      {},
      h("legend", {}, TEXT.question),
      choice(null, TEXT.asIs),
      TEXT.choices.map(([perWeek, label]) => choice(perWeek, label)),
    ),
    h("div", {}, h("label", { for: "week" }, TEXT.other), other),
    means,
    h("p", { class: "small" }, TEXT.beyond),
    h("p", { class: "row" }, actionButton("Change the set-point", save, { main: true, after })),
    h(
      "details",
      {},
      h("summary", {}, TEXT.curve),
      figure,
      h("p", { class: "odd-text" }, asSentence(point.unusual_promise)),
      h("p", { class: "small" }, LAMPS),
    ),
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

// The normal recordings: listen, take out, name their session.
async function normalList(id, after, chosen) {
  const found = await get(apiPath("machines", id, "normals"));
  const here = new Set(found.normals.map((normal) => normal.key));
  for (const key of chosen) if (!here.has(key)) chosen.delete(key);
  const change = (body) => async (who) => {
    const done = await update(apiPath("machines", id, "normals"), { who, ...body });
    chosen.clear();
    return done.message;
  };
  const item = (normal) => {
    const box = h("input", {
      type: "checkbox",
      checked: chosen.has(normal.key),
      "aria-label": TEXT.choose(normal.name),
    });
    box.addEventListener("change", () => chosen[box.checked ? "add" : "delete"](normal.key));
    return {
      label: [
        box,
        " ",
        h("b", {}, normal.name),
        h("span", { class: "small" }, ` ${scoreText(normal.score)}${normal.session ? ` · ${normal.session}` : ""}`),
        normal.unlike && h("span", { class: "warning" }, ` ${TEXT.unlike}`),
      ],
      name: normal.name,
      sounds: normal.playable
        ? found.channels.map((name) => ({ name, src: apiPath("machines", id, "normals", normal.index, name) }))
        : [],
      answers: actionButton(TEXT.remove, change({ keys: [normal.key], remove: true }), { after }),
    };
  };
  const session = h("input", { type: "text", id: "session", maxlength: 60, autocomplete: "off" });
  const tag = (who) => (chosen.size ? change({ keys: [...chosen], session: session.value })(who) : TEXT.none);
  const removeAll = (who) => (chosen.size ? change({ keys: [...chosen], remove: true })(who) : TEXT.none);
  return panel(
    "normals",
    TEXT.normals,
    h("p", {}, TEXT.normalsHow),
    h("p", { class: "small" }, TEXT.total(found.normals.length, found.total)),
    dropZone({
      label: TEXT.drop,
      path: (file) => uploadPath(id, "add", file.name, `&who=${encodeURIComponent(savedName())}`),
      done: after,
    }),
    h(
      "div",
      { class: "scroll", tabindex: 0, "aria-label": TEXT.normals, role: "group" },
      player(found.normals.map(item)),
    ),
    h("div", {}, h("label", { for: "session" }, TEXT.session), session),
    h(
      "p",
      { class: "row" },
      actionButton(TEXT.name, tag, { after }),
      actionButton(TEXT.removeAll, removeAll, { after }),
    ),
  );
}
