// The trend of a machine as SVG: scores over time, the set-point, alarms, and spans without usable sound.

import { h, s } from "./dom.js";
import { number, t } from "./texts.js";
import { clockText, dayText, hourText, now } from "./time.js";
import { scoreText } from "./words.js";

const called = (e) => (e.label ? `: ${e.label}` : "");
const alarmText = (e) => t("chart.flag", { time: clockText(e.started), score: scoreText(e.peak_score) }) + called(e);
const oddText = (e) => t("chart.diamond", { time: clockText(e.started) }) + called(e);
const pinText = (n) => t("chart.pin", { time: clockText(n.at), text: n.text });
const H = 300;
const LEFT = 44;
const RIGHT = 12;
const TOP = 26;
const BOTTOM = 30;

// A scale that keeps the usual range readable when one alarm is far above it.
export function scale(values, limit) {
  const low = Math.min(-2, ...values) - 0.4;
  const high = Math.max(limit * 1.35, 2, 1.05 * Math.max(...values, 0));
  const bent = high > 6 * Math.max(limit, 2);
  const knee = Math.max(limit, 2);
  const f = bent ? (v) => Math.asinh(v / knee) : (v) => v;
  const y = (v) => TOP + (H - TOP - BOTTOM) * (1 - (f(v) - f(low)) / (f(high) - f(low)));
  const steps = bent ? [0, Math.round(knee), 10, 30, 100, 300, 1000, 1e4, 1e5] : ticks(low, high);
  return {
    y,
    marks: steps.filter((v, i) => v >= low && v <= high && (i === 0 || y(steps[i - 1]) - y(v) > 16)),
    low,
    high,
    bent: bent && knee,
  };
}

function ticks(low, high) {
  const step = [0.5, 1, 2, 5, 10, 20, 50].find((size) => (high - low) / size <= 7) || 100;
  return Array.from(
    { length: Math.floor(high / step) - Math.ceil(low / step) + 1 },
    (_, i) => (Math.ceil(low / step) + i) * step,
  );
}

function timeMarks(since, until) {
  const days = (until - since) / 86400;
  const step =
    days > 15
      ? 5 * 86400
      : days > 4
        ? 86400
        : days > 1.5
          ? 43200
          : days > 0.5
            ? 4 * 3600
            : days > 0.1
              ? 3600
              : days > 0.01
                ? 600
                : 60;
  const zero = new Date(since * 1000).getTimezoneOffset() * 60;
  const marks = [];
  for (let at = Math.ceil((since - zero) / step) * step + zero; at < until; at += step)
    marks.push([at, step >= 86400 ? dayText(at) : hourText(at)]);
  return marks;
}

// Splits points where more than `gap` seconds lie between two of them.
function splitAtGaps(points, gap) {
  const runs = [];
  for (const point of points) {
    const last = runs.at(-1);
    if (last && point.t0 - last.at(-1).t0 <= gap) last.push(point);
    else runs.push([point]);
  }
  return runs;
}

function path(run, x, y, value) {
  return run.map((p, i) => `${i ? "L" : "M"}${x(p.t0, p).toFixed(1)} ${y(value(p)).toFixed(1)}`).join("");
}

// `onMove({ by, zoom })` is called when the reader drags or uses the keys: by a share of the span, or zooming by a factor.
export function trendChart({
  scores,
  events,
  notes,
  since,
  until,
  threshold,
  unusual_threshold,
  clip_s,
  name,
  width,
  onMove,
}) {
  const W = Math.max(300, Math.min(1200, width || 960));
  const judged = scores.filter((p) => p.anomalous !== null);
  const x = (when) => LEFT + ((W - LEFT - RIGHT) * (when - since)) / (until - since);
  const { y, marks, low, high, bent } = scale(
    [...judged.map((p) => p.score), ...scores.map((p) => p.threshold)],
    threshold,
  );
  const gap = Math.max(6 * clip_s, (until - since) / 90);
  const svg = s("svg", {
    class: "chart",
    viewBox: `0 0 ${W} ${H}`,
    role: "group",
    "aria-label": t("chart.name", { machine: name }),
  });
  const zones = [
    [t("chart.fine"), low, Math.min(unusual_threshold, threshold), "fine"],
    ["", unusual_threshold, threshold, "odd"], // the lines of these two have their words
    ["", threshold, high, "alarm"],
  ];
  for (const [word, from, to, kind] of zones) {
    const [top, bottom] = [Math.max(TOP, y(to)), Math.min(H - BOTTOM, y(from))];
    if (bottom - top < 3) continue;
    svg.append(s("rect", { class: `zone ${kind}`, x: LEFT, y: top, width: W - LEFT - RIGHT, height: bottom - top }));
    if (word && bottom - top > 24) svg.append(s("text", { class: "zone-text", x: LEFT + 6, y: top + 16 }, word));
  }
  for (const v of marks) {
    svg.append(
      s("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: y(v), y2: y(v) }),
      s("text", { x: LEFT - 8, y: y(v) + 4, "text-anchor": "end" }, markText(v)),
    );
  }
  const times = timeMarks(since, until);
  const apart = Math.ceil((times.length * 62) / (W - LEFT - RIGHT));
  for (const [when, text] of times.filter((_, i) => i % apart === 0)) {
    svg.append(
      s("line", { class: "axis", x1: x(when), x2: x(when), y1: H - BOTTOM, y2: H - BOTTOM + 5 }),
      s("text", { x: x(when), y: H - BOTTOM + 19, "text-anchor": "middle" }, text),
    );
  }
  const unjudged = scores.filter((p) => p.anomalous === null);
  for (const run of splitAtGaps(unjudged, gap)) {
    const from = x(run[0].t0),
      to = x(run.at(-1).t1);
    svg.append(s("rect", { class: "gap", x: from, y: TOP, width: Math.max(2, to - from), height: H - TOP - BOTTOM }));
    if (to - from > 110)
      svg.append(s("text", { x: (from + to) / 2, y: H - BOTTOM - 8, "text-anchor": "middle" }, t("chart.no_sound")));
  }
  const alarms = events.filter((e) => e.kind === "alarm");
  for (const e of alarms) {
    const from = Math.max(since, e.started),
      to = Math.min(until, e.ended ?? now());
    svg.append(
      s("rect", { class: "span", x: x(from), y: TOP, width: Math.max(2, x(to) - x(from)), height: H - TOP - BOTTOM }),
    );
  }
  const odd = judged.filter((p) => p.unusual && !p.anomalous);
  if (odd.length) {
    const d = odd.map((p) => `M${x(p.t0).toFixed(1)} ${H - BOTTOM}v-7`).join("");
    svg.append(s("path", { class: "odd-windows", d }));
  }
  for (const run of splitAtGaps(judged, gap))
    svg.append(
      s("path", {
        class: "line",
        d: run.length > 1 ? path(run, x, y, (p) => p.score) : `M${x(run[0].t0)} ${y(run[0].score)}h1`,
      }),
    );
  if (unusual_threshold < threshold) {
    const level = y(unusual_threshold);
    svg.append(
      s("path", { class: "limit odd", d: `M${LEFT} ${level}H${W - RIGHT}` }),
      s(
        "text",
        { class: "limit-text odd", x: LEFT + 6, y: level - 5 },
        t("words.unusual_above", { value: scoreText(unusual_threshold) }),
      ),
    );
  }
  const limits = splitAtGaps(scores, Infinity)[0] || [];
  const first = limits[0]?.threshold ?? threshold;
  const steps = limits
    .map((p, i) => `${i ? `H${x(p.t0).toFixed(1)}V` : `M${LEFT} `}${y(p.threshold).toFixed(1)}`)
    .join("");
  svg.append(
    s("path", { class: "limit", d: (steps || `M${LEFT} ${y(threshold)}`) + `H${W - RIGHT}` }),
    s(
      "text",
      { class: "limit-text", x: LEFT + 6, y: y(first) - 6 },
      t("words.alarm_above", { value: scoreText(first) }),
    ),
  );
  if (scoreText(first) !== scoreText(threshold))
    svg.append(
      s(
        "text",
        { class: "limit-text", x: W - RIGHT, y: y(threshold) - 6, "text-anchor": "end" },
        t("chart.now", { value: scoreText(threshold) }),
      ),
    );
  svg.append(s("line", { class: "axis", x1: LEFT, x2: W - RIGHT, y1: H - BOTTOM, y2: H - BOTTOM }));
  for (const e of alarms) {
    const at = Math.max(x(since) + 4, x(e.started));
    const flag = s("path", { class: "flag", d: `M${at} ${TOP - 2}l-8 -14h16z` });
    svg.append(s("a", { href: `/event/${e.id}`, "aria-label": alarmText(e) }, flag, s("title", {}, alarmText(e))));
  }
  for (const e of events.filter((e) => e.kind === "unusual")) {
    const at = Math.max(x(since) + 4, x(e.started));
    const diamond = s("path", { class: "odd-mark", d: `M${at} ${TOP - 16}l7 7 -7 7 -7 -7z` });
    svg.append(s("a", { href: `/event/${e.id}`, "aria-label": oddText(e) }, diamond, s("title", {}, oddText(e))));
  }
  for (const n of notes) {
    const pin = s("path", { class: "pin", d: `M${x(n.at)} ${H - BOTTOM}v-14h9v7h-9` });
    svg.append(s("a", { href: "#notes", "aria-label": pinText(n) }, pin, s("title", {}, pinText(n))));
  }
  const axis = bent ? t("chart.axis_bent", { value: scoreText(bent) }) : t("chart.axis");
  const title = h("p", { class: "small axis-title" }, axis);
  return [title, ...withReadout(svg, scores, x, y, W, onMove)];
}

// The point under the pointer, or selected with the arrow keys, is described in words below the chart.
function withReadout(svg, scores, x, y, W, onMove) {
  const readout = h("p", { class: "readout small", role: "status" }, scores.length ? t("chart.read") : "");
  const cursor = s(
    "g",
    { visibility: "hidden" },
    s("line", { class: "cursor", y1: TOP, y2: H - BOTTOM }),
    s("circle", { class: "at", r: 4.5 }),
  );
  svg.append(cursor);
  let index = scores.length - 1;
  const show = (i) => {
    index = Math.max(0, Math.min(scores.length - 1, i));
    const p = scores[index];
    cursor.setAttribute("visibility", "visible");
    cursor.firstChild.setAttribute("x1", x(p.t0));
    cursor.firstChild.setAttribute("x2", x(p.t0));
    cursor.lastChild.setAttribute("cx", x(p.t0));
    cursor.lastChild.setAttribute("cy", p.anomalous === null ? H - BOTTOM : y(p.score));
    const facts = { time: clockText(p.t0), score: scoreText(p.score), limit: scoreText(p.threshold), why: p.problem };
    const judged = p.anomalous ? "chart.judged_above" : p.unusual ? "chart.judged_unusual" : "chart.judged";
    readout.textContent = t(p.anomalous === null ? "chart.unjudged" : judged, facts);
  };
  svg.setAttribute("tabindex", "0");
  let grabbed = null;
  svg.addEventListener("pointerdown", (e) => {
    grabbed = e.clientX;
  });
  svg.addEventListener("pointerup", (e) => {
    const moved = grabbed === null ? 0 : e.clientX - grabbed;
    grabbed = null;
    if (Math.abs(moved) > 12) onMove?.({ by: -moved / svg.getBoundingClientRect().width });
  });
  svg.addEventListener("pointermove", (e) => {
    const box = svg.getBoundingClientRect(),
      px = ((e.clientX - box.left) / box.width) * W;
    let best = 0;
    for (let i = 1; i < scores.length; i++)
      if (Math.abs(x(scores[i].t0) - px) < Math.abs(x(scores[best].t0) - px)) best = i;
    show(best);
  });
  svg.addEventListener("keydown", (e) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -25, PageDown: 25, Home: -scores.length, End: scores.length }[
      e.key
    ];
    const move =
      { "+": { zoom: 0.5 }, "-": { zoom: 2 } }[e.key] ||
      (e.shiftKey && { ArrowLeft: { by: -0.5 }, ArrowRight: { by: 0.5 } }[e.key]);
    if (e.target !== svg || (!move && !(step && scores.length))) return;
    e.preventDefault();
    if (move) onMove?.(move);
    else show(index + step);
  });
  return [svg, readout];
}

export function legend() {
  const sample = (...parts) => s("svg", { class: "chart", viewBox: "0 0 26 14", "aria-hidden": "true" }, parts);
  return h(
    "p",
    { class: "small legend" },
    h(
      "span",
      {},
      sample(s("path", { class: "line", d: "M0 9 6 5 12 10 18 4 26 8" })),
      t("chart.score"),
    ),
    h("span", {}, sample(s("path", { class: "limit", d: "M0 7H26" })), t("chart.set_point")),
    h(
      "span",
      {},
      sample(
        s("rect", { class: "span", x: 5, y: 0, width: 16, height: 14 }),
        s("path", { class: "flag", d: "M13 12l-6 -10h12z" }),
      ),
      t("chart.alarm"),
    ),
    h(
      "span",
      {},
      sample(
        s("path", { class: "odd-mark", d: "M8 0l6 6 -6 6 -6 -6z" }),
        s("path", { class: "odd-windows", d: "M18 13v-7M22 13v-7" }),
      ),
      t("chart.marks"),
    ),
    h("span", {}, sample(s("path", { class: "pin", d: "M8 14v-12h9v7h-9" })), t("chart.note")),
    h("span", {}, sample(s("rect", { class: "gap", x: 3, y: 0, width: 20, height: 14 })), t("chart.no_sound")),
  );
}

const markText = (v) => (Math.abs(v) >= 1 || v === 0 ? number(v) : scoreText(v));

// Calls `draw` when the width of the element changes.
export function onWidth(element, draw) {
  let width = element.clientWidth;
  new ResizeObserver(() => {
    if (Math.abs(element.clientWidth - width) < 8) return;
    width = element.clientWidth;
    draw();
  }).observe(element);
}

// The scores of the last hours as a small line with the set-point, without labels.
export function sparkline(scores, threshold) {
  const w = 300;
  const hgt = 44;
  const svg = s("svg", {
    class: "spark",
    viewBox: `0 0 ${w} ${hgt}`,
    preserveAspectRatio: "none",
    "aria-hidden": "true",
  });
  const judged = scores.filter((p) => p.anomalous !== null);
  if (judged.length < 2) return svg;
  const byFile = Boolean(scores.at(-1).file); // recordings now and then: one after the other, however long they are apart
  const place = (p) => (byFile ? judged.indexOf(p) : p.t0);
  const since = byFile ? 0 : scores[0].t0;
  const until = byFile ? judged.length - 1 : scores.at(-1).t0;
  const sc = scale(
    judged.map((p) => p.score),
    threshold,
  );
  const y = (v) => ((sc.y(v) - TOP) / (H - TOP - BOTTOM)) * (hgt - 4) + 2;
  const x = (when) => (w * (when - since)) / (until - since || 1);
  const runs = byFile ? [judged] : splitAtGaps(judged, (until - since) / 20);
  svg.classList.add("chart");
  svg.append(s("path", { class: "limit", d: `M0 ${y(threshold)}H${w}`, "vector-effect": "non-scaling-stroke" }));
  for (const run of runs)
    svg.append(
      s("path", {
        class: "line",
        d: path(
          run,
          (_, p) => x(place(p)),
          y,
          (p) => p.score,
        ),
        "vector-effect": "non-scaling-stroke",
      }),
    );
  return svg;
}

// The score as a bar; the set-point is at two thirds of its length, and that of unusual windows is a thin line.
export function gauge(value, threshold, unusual) {
  if (value === null) return null;
  const low = Math.min(-2, threshold - 1);
  const place = (score) => Math.max(0.01, Math.min(1, ((score - low) / (threshold - low)) * (2 / 3)));
  return s(
    "svg",
    {
      class: value > threshold ? "gauge over" : value > unusual ? "gauge odd" : "gauge",
      viewBox: "0 0 300 14",
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    },
    s("rect", { class: "bed", y: 4, width: 300, height: 6 }),
    s("rect", { class: "fill", y: 4, width: 300 * place(value), height: 6 }),
    unusual < threshold &&
      s("line", {
        class: "mark odd",
        x1: 300 * place(unusual),
        x2: 300 * place(unusual),
        y1: 0,
        y2: 14,
        "vector-effect": "non-scaling-stroke",
      }),
    s("line", { class: "mark", x1: 200, x2: 200, y1: 0, y2: 14, "vector-effect": "non-scaling-stroke" }),
  );
}
