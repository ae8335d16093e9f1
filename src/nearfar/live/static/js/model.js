// The model of a machine: its normal recordings, its set-point, and the false alarms that other set-points would cause.

import { actionButton, auditList } from "./actions.js";
import { apiPath, get, savedName, update } from "./api.js";
import { onWidth } from "./chart.js";
import { breadcrumbs, facts, h, note, panel, replaceContent, s, setTitle } from "./dom.js";
import { dropZone, uploadPath } from "./drop.js";
import { player } from "./player.js";
import { subscribe, throttle } from "./stream.js";
import { fixed, parts, t } from "./texts.js";
import { asSentence, frequencyText, scoreText } from "./words.js";

const H = 260;
const LEFT = 96;
const RIGHT = 16;
const TOP = 18;
const BOTTOM = 44;
const FREQUENCIES = [
  [700, "rates.days", 100],
  [70, "rates.days", 10],
  [7, "rates.days", 1],
  [1, "rates.weeks", 1],
  [12 / 52.18, "rates.months", 1],
  [1 / 52.18, "rates.years", 1],
  [0.1 / 52.18, "rates.in_years", 10],
]; // [per week, key of its text, count there]

const CHOICES = FREQUENCIES.slice(1, 5); // 10 a day to 1 a month

export async function show(main, id) {
  let model = await get(apiPath("machines", id, "model"));
  const setup = (await get("/v1/collections")).collections.some((each) => each.id === id);
  const title = t("model.title", { machine: model.name });
  setTitle(title);
  const body = h("div", {});
  replaceContent(
    main,
    breadcrumbs([t("machines.title"), "/"], [model.name, `/machine/${encodeURIComponent(id)}`], [t("model.short")]),
    h("div", { class: "title" }, h("h1", {}, title)),
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
      ? auditList(model.audit, reload, t("model.taken_back"))
      : note(t("model.unchanged"));
    replaceContent(
      body,
      h("div", { class: "pair" }, setPoint(id, model, reload), modelFacts(model, setup)),
      normals,
      panel("audit", t("model.audit"), audit),
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
  const { near, far } = model;
  const setupPath = `/setup/${encodeURIComponent(model.id)}`;
  const amount = { count: model.normals, minutes: fixed(model.minutes, 1) };
  return panel(
    "fitted",
    t("model.fitted"),
    facts([
      [t("model.normals"), t("model.normals_are", amount)],
      ...model.domains.map(({ name, normals }) => [t(`domains.${name}`), t("model.recordings", { count: normals })]),
      [t("model.microphones"), t(far === null ? "model.only_near" : "model.near_and_far", { near, far })],
      [t("model.behind"), model.backing],
      [t("model.window"), t("time.seconds", { count: model.clip_seconds })],
    ]),
    h("details", {}, h("summary", {}, t("model.chosen")), h("p", {}, asSentence(model.why))),
    model.remarks.map((text) => note(asSentence(text))),
    setup && h("p", {}, h("a", { class: "button", href: `${setupPath}#2` }, t("model.add_setup"))),
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
  const unusualAbove = t("words.unusual_above", { value: scoreText(point.unusual_value) });
  const unusual = h("span", { class: "odd-text" }, unusualAbove);
  const dryRun = (perWeek) =>
    update(apiPath("machines", id, "threshold"), { false_alarms_per_week: perWeek, dry_run: true }).catch(() => null);
  let wish = null; // false alarms a week, or null: as now
  let asked = 0;
  const say = (wished) => {
    const key = wished.beyond_normals ? "model.above_estimated" : "words.alarm_above";
    return [t(key, { value: scoreText(wished.value) }), wished.price.text].map(asSentence).join(" ");
  };
  const choice = (perWeek, label) => {
    const input = h("input", { type: "radio", name: "wish", value: perWeek ?? "", checked: perWeek === null });
    const price = h(
      "span",
      { class: "small" },
      perWeek === null ? ` ${t("words.alarm_above", { value: scoreText(point.value) })}` : "…",
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
    means.textContent = wished ? t("model.at_most", { rate: frequencyText(wish), what: say(wished) }) : "";
    drawCurve(wished);
  };
  const drawCurve = (wished) =>
    replaceContent(
      figure,
      costCurve(model, wish ?? point.false_alarms_per_week, wished && wished.value, figure.clientWidth),
      h("figcaption", {}, t("model.curve_caption")),
    );
  const save = async (name) => {
    if (wish === null) return t("model.nothing_changed");
    const answer = await update(apiPath("machines", id, "threshold"), { false_alarms_per_week: wish, who: name });
    return t("model.changed", { value: scoreText(answer.value), price: asSentence(answer.price.text) });
  };
  const otherSoon = throttle(() => Number(other.value) > 0 && choose(Number(other.value)), 300);
  other.addEventListener("input", otherSoon);
  onWidth(figure, () => drawCurve(null));
  drawCurve(null);
  return panel(
    "set-point",
    t("model.set_point"),
    h("p", { class: "lead" }, parts("model.is", { value: scoreText(point.value), unusual })),
    point.promise.map((line) => h("p", { class: "small" }, asSentence(line))),
    h(
      "fieldset",
      {},
      h("legend", {}, t("model.question")),
      choice(null, t("model.as_is")),
      CHOICES.map(([perWeek, key, count]) => choice(perWeek, t(key, { count }))),
    ),
    h("div", {}, h("label", { for: "week" }, t("model.other")), other),
    means,
    h("p", { class: "small" }, t("model.beyond")),
    h("p", { class: "row" }, actionButton(t("model.change"), save, { main: true, after })),
    h(
      "details",
      {},
      h("summary", {}, t("model.curve")),
      figure,
      h("p", { class: "odd-text" }, asSentence(point.unusual_promise)),
      h("p", { class: "small" }, t("model.lamps")),
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
    (p) => ({ rate: frequencyText(p.false_alarms_per_week), at: scoreText(p.value) }),
  );
  const label = t("model.curve_name", { most: from.rate, low: from.at, least: to.rate, high: to.at });
  const svg = s("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": label });
  const edge = Math.min(H - BOTTOM, Math.max(TOP, y(model.backed_per_week)));
  svg.append(s("rect", { class: "beyond", x: LEFT, y: edge, width: W - LEFT - RIGHT, height: H - BOTTOM - edge }));
  for (const [w, key, count] of FREQUENCIES) {
    if (Math.log(w) > most || Math.log(w) < least) continue;
    svg.append(
      s("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: y(w), y2: y(w) }),
      s("text", { x: LEFT - 8, y: y(w) + 4, "text-anchor": "end" }, t(key, { count })),
    );
  }
  const step = [0.5, 1, 2, 5, 10, 20, 50, 100].find((size) => (high - low) / size <= 8) || 500;
  for (let v = Math.ceil(low / step) * step; v <= high; v += step)
    svg.append(s("text", { x: x(v), y: H - BOTTOM + 18, "text-anchor": "middle" }, scoreText(v)));
  svg.append(
    s("text", { x: (LEFT + W - RIGHT) / 2, y: H - 6, "text-anchor": "middle" }, t("model.axis")),
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
      t("model.now"),
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
    const session = normal.session.replace(/^.*\//, ""); // of a folder within others
    const box = h("input", {
      type: "checkbox",
      checked: chosen.has(normal.key),
      "aria-label": t("model.choose", { name: normal.name }),
    });
    box.addEventListener("change", () => chosen[box.checked ? "add" : "delete"](normal.key));
    return {
      label: [
        box,
        " ",
        h("b", {}, normal.name),
        h("span", { class: "small" }, ` ${scoreText(normal.score)}${session ? ` · ${session}` : ""}`),
        normal.unlike && h("span", { class: "warning" }, ` ${t("model.unlike")}`),
      ],
      name: normal.name,
      sounds: normal.playable
        ? found.channels.map((name) => ({ name, src: apiPath("machines", id, "normals", normal.index, name) }))
        : [],
      answers: actionButton(t("model.remove"), change({ keys: [normal.key], remove: true }), { after }),
    };
  };
  const amount = { shown: found.normals.length, count: found.total };
  const session = h("input", { type: "text", id: "session", maxlength: 60, autocomplete: "off" });
  const tag = (who) => (chosen.size ? change({ keys: [...chosen], session: session.value })(who) : t("model.none"));
  const removeAll = (who) => (chosen.size ? change({ keys: [...chosen], remove: true })(who) : t("model.none"));
  return panel(
    "normals",
    t("model.list"),
    h("p", {}, t("model.list_how")),
    h("p", { class: "small" }, t(found.normals.length < found.total ? "model.some" : "model.all", amount)),
    dropZone({
      label: t("model.drop"),
      path: (file) => uploadPath(id, "add", file.name, `&who=${encodeURIComponent(savedName())}`),
      done: after,
    }),
    h(
      "div",
      { class: "scroll", tabindex: 0, "aria-label": t("model.list"), role: "group" },
      player(found.normals.map(item)),
    ),
    h("div", {}, h("label", { for: "session" }, t("model.session")), session),
    h(
      "p",
      { class: "row" },
      actionButton(t("model.name"), tag, { after }),
      actionButton(t("model.remove_all"), removeAll, { after }),
    ),
  );
}
