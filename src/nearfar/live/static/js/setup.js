// Setting up a machine: where its sound comes from, its normal recordings, listening to the odd ones, fitting.

import { actionButton } from "./actions.js";
import { ApiError, apiPath, get, post, remove, update } from "./api.js";
import { announce, at, badge, breadcrumbs, h, icon, note, panel, replaceContent, setTitle } from "./dom.js";
import { dropZone, uploadPath } from "./drop.js";
import { levelMeters } from "./levels.js";
import { allowed, microphones, NONE, openMicrophone, RIGHT, stayOpen } from "./microphone.js";
import { player } from "./player.js";
import { subscribe, throttle } from "./stream.js";
import { list, t } from "./texts.js";
import { asSentence } from "./words.js";

const KINDS = ["browser", "microphone", "folder", "stream", "files"]; // where sound comes from
const LATER = ["browser", "files"]; // that are heard only while somebody listens or sends
const ENDED = ["done", "failed", "cancelled", "interrupted"];
const TEST_S = 10;
const MOST_REFUSED = 3; // recordings in a row that cannot be used
const MOST_SHOWN = 200; // recordings in the list of all

export async function show(main, id) {
  return id === undefined ? showStart(main) : showMachine(main, id);
}

async function showStart(main) {
  setTitle(t("setup.title"));
  const found = await get("/v1/collections");
  document.getElementById("live").hidden = true;
  if (!found.possible) {
    replaceContent(main, h("h1", {}, t("setup.title")), note(t("setup.impossible")));
    return;
  }
  const name = h("input", { type: "text", id: "name", required: true, maxlength: 64, autocomplete: "off" });
  const problem = h("p", { class: "warning", role: "alert", hidden: true });
  const begin = async (event) => {
    event.preventDefault();
    const id =
      name.value
        .trim()
        .replace(/[^A-Za-z0-9_-]+/g, "-")
        .replace(/^[-_]+|-+$/g, "") || "machine";
    try {
      const made = await post("/v1/machines", { id, name: name.value.trim() });
      window.location.assign(at(`/setup/${encodeURIComponent(made.id)}`));
    } catch (error) {
      problem.textContent = asSentence(error.message);
      problem.hidden = false;
    }
  };
  const waiting = found.collections.filter((each) => !each.live);
  replaceContent(
    main,
    breadcrumbs([t("machines.title"), "/"], [t("setup.title")]),
    h("div", { class: "title" }, h("h1", {}, t("setup.title"))),
    h(
      "section",
      { class: "panel" },
      h("p", { class: "lead" }, t("setup.intro")),
      h(
        "ol",
        {},
        list("setup.plan").map((text) => h("li", {}, text)),
      ),
      h(
        "form",
        { class: "new-machine", onsubmit: begin },
        h("div", {}, h("label", { for: "name" }, t("setup.name")), name),
        problem,
        h("p", { class: "row" }, h("button", { class: "main" }, t("setup.begin"))),
      ),
    ),
    waiting.length > 0 && panel("going", t("setup.going"), h("ul", { class: "plain" }, waiting.map(waitingItem))),
  );
}

const counterText = ({ recordings, sessions }) => t("setup.counter", { recordings, sessions });

// A machine that is being set up, as a list item with a link.
export function waitingItem(made) {
  const link = h("a", { class: "button", href: `/setup/${encodeURIComponent(made.id)}` }, t("setup.go_on"));
  return h(
    "li",
    {},
    h("div", { class: "row" }, h("b", {}, made.name), h("span", { class: "small" }, counterText(made)), link),
  );
}

async function showMachine(main, id) {
  let made = await get(apiPath("machines", id, "recordings"));
  const { here } = await get("/v1/collections");
  const first = made.live || made.recordings >= 20 ? 2 : made.recordings ? 1 : 0;
  let step = Math.max(
    0,
    list("setup.steps").findIndex((_, i) => window.location.hash === `#${i + 1}`),
  );
  if (!window.location.hash) step = first;
  setTitle(`${t("setup.title")}: ${made.name}`);
  const steps = h("nav", { class: "steps", "aria-label": t("setup.steps_name") });
  const work = h("div", {});
  const body = h("div", {});
  const shared = {
    id,
    here,
    get made() {
      return made;
    },
    reload,
    go,
    microphone: null,
  };
  const pages = [whereFrom(shared), collect(shared), listen(shared), fitting(shared)];
  replaceContent(
    main,
    breadcrumbs([t("machines.title"), "/"], [t("setup.title"), "/setup"], [made.name]),
    h("div", { class: "title" }, h("h1", {}, made.name)),
    steps,
    work,
    body,
  );

  async function reload() {
    made = await get(apiPath("machines", id, "recordings"));
    draw();
  }
  function go(to) {
    if (step === 0) closeMicrophone(shared); // of the test
    step = to;
    history.replaceState(null, "", `#${to + 1}`);
    draw();
    body.querySelector("h2")?.focus();
  }
  function draw() {
    const focused = steps.contains(document.activeElement) ? step : -1;
    const button = (name, i) =>
      h(
        "li",
        {},
        h(
          "button",
          { type: "button", "aria-current": i === step ? "step" : null, onclick: () => go(i) },
          `${i + 1}. ${name}`,
        ),
      );
    replaceContent(steps, h("ol", {}, list("setup.steps").map(button)));
    if (focused >= 0) steps.querySelectorAll("button")[step].focus();
    drawJob();
    const page = pages[step];
    if (body.firstChild !== page.element) replaceContent(body, page.element);
    page.draw();
  }
  function drawJob() {
    const job = made.job;
    const shown = job && job.state !== "done" && job.state !== "cancelled";
    replaceContent(work, shown ? jobPanel(job, reload) : null);
  }
  subscribe({
    job: (message) => {
      if (message.machine !== id) return;
      const news = made.job?.state !== message.state;
      made = { ...made, job: message };
      if (news && ENDED.includes(message.state)) {
        announce(`${t(`jobs.${message.kind}`)}: ${t(`job_states.${message.state}`)}`);
        reload().catch(() => {});
      } else drawJob();
    },
    microphone: (message) => {
      if (message.machine !== id) return;
      made = { ...made, microphone: message };
      pages[step].onSession?.(message);
      if (message.state === "ended" || message.state === "failed") reload().catch(() => {});
    },
    resync: () => reload().catch(() => {}),
  });
  draw();
}

function jobPanel(job, after) {
  const running = !ENDED.includes(job.state);
  const failed = job.state === "failed" || job.state === "interrupted";
  const again = async () => {
    await post(`/v1/jobs/${job.id}/resume`);
    return t("job_states.waiting");
  };
  const cancel = async () => {
    await remove(apiPath("jobs", job.id));
    return t("job_states.cancelled");
  };
  const name = t(`jobs.${job.kind}`);
  const state = job.state !== "working" && t(`job_states.${job.state}`);
  return h(
    "section",
    { class: `panel${failed ? " trouble" : ""}`, role: failed ? "alert" : null, "aria-label": name },
    h(
      "p",
      {},
      h("b", {}, state ? `${name}: ${state}` : name),
      job.what && ` · ${asSentence(job.what)}`,
    ),
    running &&
      h("progress", { "aria-label": name, max: job.total || 1, value: job.total ? job.done : false }),
    h(
      "p",
      { class: "row" },
      running && plainButton(t("setup.cancel"), cancel, after),
      failed && plainButton(t("setup.go_on"), again, after),
    ),
  );
}

// A button for work that needs no name.
function plainButton(text, work, after = () => {}, { main = false, sign } = {}) {
  const button = h("button", { type: "button", class: main ? "main" : null }, sign && icon(sign), text);
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    try {
      const said = await work();
      if (said) announce(said);
      await after();
    } catch (error) {
      announce(error instanceof ApiError ? asSentence(error.message) : t("actions.failed", { why: error.message }));
    }
    button.removeAttribute("aria-disabled");
  });
  return button;
}

const nextButton = (shared, step) =>
  h(
    "p",
    { class: "row" },
    h("button", { type: "button", class: "main", onclick: () => shared.go(step) }, t("setup.next")),
  );
const heading = (text) => h("h2", { tabindex: -1 }, text);

// ---- Where from -----------------------------------------------------------------------------------------------------

function whereFrom(shared) {
  const { id } = shared;
  const element = h("section", { class: "panel" });
  const detail = h("div", { class: "detail" });
  const meters = levelMeters();
  const verdict = h("div", { role: "status" });
  const kinds = KINDS.filter((kind) => shared.here || kind !== "folder");
  const change = (body) => update(apiPath("machines", id, "recordings"), body);
  let chosen = "";
  let choosing = Promise.resolve(); // one change after the other: the last choice counts, not the last answer
  const choose = async (kind) => {
    if (kind !== chosen) return;
    closeMicrophone(shared);
    await change({ kind, source: kind === shared.made.kind ? undefined : [] });
    await shared.reload();
    drawDetail();
  };
  const radio = (kind) => {
    const input = h("input", { type: "radio", name: "kind", value: kind, checked: kind === shared.made.kind });
    input.addEventListener("change", () => {
      chosen = kind;
      choosing = choosing.then(() => choose(kind)).catch((error) => announce(error.message));
    });
    const hint = h("span", { class: "small" }, ` ${t(`source_hints.${kind}`)}`);
    return h("label", { class: "choice" }, input, h("span", {}, t(`sources.${kind}`), hint));
  };
  const details = { browser, microphone, folder, stream, files };
  let drawn = "";
  let connecting = false; // levels were asked for, and none has come

  function drawDetail() {
    drawn = shared.made.kind;
    announce("");
    meters.show([]);
    replaceContent(verdict);
    replaceContent(detail, details[drawn]());
  }
  function showTest(taken) {
    const problems = taken.problems.map((text) => h("p", { class: "warning" }, icon("cross"), " ", asSentence(text)));
    const channels = taken.levels.length > 1 ? ["near", "far"] : ["near"];
    const sounds = channels.map((name) => ({ name, src: `${apiPath("machines", id, "test", name)}?t=${Date.now()}` }));
    replaceContent(
      verdict,
      problems.length ? problems : h("p", {}, badge({ word: t("setup.test_good"), sign: "fine", kind: "fine" })),
      taken.file && player([{ label: t("setup.tested"), sounds }]),
    );
  }
  function browser() {
    if (!allowed()) return h("p", { class: "warning" }, t("setup.insecure"));
    const near = h("select", { id: "near" });
    const far = h("select", { id: "far" });
    const fill = async () => {
      const found = await microphones();
      const option = ({ id, label }, i) =>
        h("option", { value: id }, label || t("setup.microphone", { number: i + 1 }));
      const [wasNear, wasFar] = [near.value, far.value];
      replaceContent(near, found.map(option));
      replaceContent(
        far,
        h("option", { value: RIGHT }, t("setup.right_channel")),
        h("option", { value: NONE }, t("setup.no_far")),
        found.map(option),
      );
      near.value = wasNear || near.value;
      far.value = wasFar || saved(id).far || (shared.made.mono ? NONE : RIGHT);
    };
    const open = async () => {
      closeMicrophone(shared);
      shared.microphone = await openMicrophone({
        near: near.value,
        far: far.value,
        onLevels: meters.show,
        onEnd: () => meters.show([]),
      });
      await fill();
      save(id, { near: near.value, far: far.value });
      await change({ mono: shared.microphone.channels === 1 });
    };
    const stop = () => {
      closeMicrophone(shared);
      meters.show([]);
    };
    const test = async () => {
      if (!shared.microphone) await open();
      replaceContent(verdict, h("p", {}, t("setup.testing", { seconds: TEST_S })));
      const file = await shared.microphone.record(TEST_S);
      try {
        showTest(await post(uploadPath(id, "recordings", "test.wav", "&test=true"), file));
      } catch (error) {
        showTest({ file: "", levels: [], problems: [error.message] });
      }
    };
    for (const select of [near, far])
      select.addEventListener("change", () => shared.microphone && open().catch((e) => announce(e.message)));
    fill().catch(() => {});
    return [
      h("p", { class: "small" }, t("setup.place"), " ", h("a", { href: "/guide", target: "_blank" }, t("setup.guide"))),
      h("div", { class: "fields" }, labelled(t("setup.near"), near), labelled(t("setup.far"), far)),
      h(
        "p",
        { class: "row" },
        plainButton(t("setup.allow"), open),
        plainButton(t("setup.test", { seconds: TEST_S }), test, undefined, { main: true }),
        plainButton(t("setup.stop"), stop),
      ),
    ];
  }
  function serverButtons(before) {
    const use = (what) => async () => {
      await before();
      const text = what === "test" ? t("setup.testing", { seconds: TEST_S }) : t("setup.connecting");
      connecting = what === "levels";
      replaceContent(verdict, h("p", {}, text));
      await post(apiPath("machines", id, "microphone"), { what, seconds: TEST_S });
    };
    const stop = () =>
      remove(apiPath("machines", id, "microphone")).then(
        () => meters.show([]),
        () => {},
      );
    return h(
      "p",
      { class: "row" },
      plainButton(t("setup.levels"), use("levels")),
      plainButton(t("setup.test", { seconds: TEST_S }), use("test"), undefined, { main: true }),
      plainButton(t("setup.stop"), stop),
    );
  }
  function microphone() {
    const [near, far] = [h("select", { id: "near" }), h("select", { id: "far" })];
    const problem = h("p", { class: "warning", role: "status" }, t("setup.searching"));
    get("/v1/microphones").then(
      (found) => {
        const option = (d) => h("option", { value: d.source }, d.label || d.source);
        replaceContent(near, found.devices.map(option));
        replaceContent(
          far,
          h("option", { value: RIGHT }, t("setup.right_channel")),
          h("option", { value: NONE }, t("setup.no_far")),
          found.devices.map(option),
        );
        const [wasNear, wasFar] = shared.made.source;
        near.value = wasNear || near.value;
        far.value = wasFar || (shared.made.mono ? NONE : RIGHT);
        problem.textContent = asSentence(found.problem || (found.devices.length ? "" : t("setup.no_microphone")));
      },
      (error) => {
        problem.textContent = asSentence(error.message);
      },
    );
    const store = async () => {
      const two = far.value !== RIGHT && far.value !== NONE;
      await change({ source: two ? [near.value, far.value] : [near.value], mono: far.value === NONE });
    };
    return [
      h("p", { class: "small" }, t("setup.place"), " ", h("a", { href: "/guide", target: "_blank" }, t("setup.guide"))),
      h("div", { class: "fields" }, labelled(t("setup.near"), near), labelled(t("setup.far"), far)),
      problem,
      serverButtons(store),
    ];
  }
  function folder() {
    const input = h("input", {
      type: "text",
      id: "folder",
      value: shared.made.folder,
      autocomplete: "off",
      required: true,
    });
    const watched = h("input", {
      type: "text",
      id: "watched",
      value: shared.made.source[0] || "",
      autocomplete: "off",
    });
    const store = async () => {
      await change({ folder: input.value, source: [watched.value] });
      return t("setup.saved");
    };
    return [
      labelled(t("setup.folder"), input),
      labelled(t("setup.watched"), watched),
      h("p", { class: "row" }, plainButton(t("setup.save"), store, shared.reload, { main: true })),
    ];
  }
  function stream() {
    const inputs = list("setup.stream").map((_, i) =>
      h("input", { type: "text", id: `stream${i}`, autocomplete: "off", value: shared.made.source[i] || "" }),
    );
    const store = () => change({ source: inputs.map((input) => input.value).filter(Boolean) });
    return [
      h(
        "div",
        { class: "fields" },
        inputs.map((input, i) => labelled(list("setup.stream")[i], input)),
      ),
      serverButtons(store),
    ];
  }
  function files() {
    return uploads(shared);
  }
  replaceContent(
    element,
    heading(list("setup.steps")[0]),
    h("fieldset", {}, h("legend", { class: "hidden" }, list("setup.steps")[0]), kinds.map(radio)),
    detail,
    meters.element,
    verdict,
    nextButton(shared, 1),
  );
  return {
    element,
    draw: () => drawn !== shared.made.kind && drawDetail(),
    onSession: (session) => {
      meters.show(session.levels);
      if (connecting && session.levels.length) replaceContent(verdict);
      connecting &&= !session.levels.length;
      if (session.last) showTest(session.last);
      else if (session.problem) replaceContent(verdict, h("p", { class: "warning" }, asSentence(session.problem)));
    },
  };
}

// What this browser remembers of its microphones for a machine.
export function saved(id) {
  try {
    return JSON.parse(localStorage.getItem(`nearfar.microphone.${id}`)) || {};
  } catch {
    return {};
  }
}

function save(id, chosen) {
  try {
    localStorage.setItem(`nearfar.microphone.${id}`, JSON.stringify(chosen));
  } catch {
    /* this browser stores nothing */
  }
}

function closeMicrophone(shared) {
  shared.microphone?.close();
  shared.microphone = null;
}

function labelled(text, input) {
  return h("div", {}, h("label", { for: input.id }, text), input);
}

function uploads(shared) {
  return dropZone({ path: (file) => uploadPath(shared.id, "recordings", file.name), done: () => shared.reload() });
}

// ---- Collect --------------------------------------------------------------------------------------------------------

function collect(shared) {
  const { id } = shared;
  const element = h("section", { class: "panel" });
  const counter = h("div", {});
  const drop = h("div", {});
  const state = h("div", { role: "status" });
  const meters = levelMeters();
  const number = (name, value, more) => h("input", { type: "number", id: name, value, required: true, ...more });
  const count = number("count", 20, { min: 1, max: 1000 });
  const seconds = number("seconds", 10, { min: 1, max: 600 });
  const every = number("every", 0, { min: 0, max: 86400 });
  let stopped = true;
  let leave = () => {};
  const reloadSoon = throttle(() => shared.reload().catch(() => {}), 2000);

  const begin = async () => {
    for (const input of [count, seconds, every]) if (!input.reportValidity()) return;
    stopped = false;
    if (shared.made.kind === "browser") await recordHere();
    else await post(apiPath("machines", id, "microphone"), settings());
  };
  const settings = () => ({
    what: "record",
    count: Number(count.value),
    seconds: Number(seconds.value),
    every_s: Number(every.value),
  });
  const stop = async () => {
    stopped = true;
    leave();
    closeMicrophone(shared);
    meters.show([]);
    if (shared.made.kind !== "browser") await remove(apiPath("machines", id, "microphone")).catch(() => {});
  };
  const tell = (text, problems = []) =>
    replaceContent(
      state,
      text && h("p", {}, text),
      problems.map((each) => h("p", { class: "warning" }, icon("cross"), " ", asSentence(each))),
    );
  const recordHere = async () => {
    const { near, far } = saved(id);
    shared.microphone ||= await openMicrophone({ near, far, onLevels: (levels) => meters.show(levels), onEnd: stop });
    leave = stayOpen();
    const wanted = settings();
    for (let taken = 0, refused = 0; taken < wanted.count && refused < MOST_REFUSED && !stopped;) {
      const began = Date.now();
      let said;
      try {
        const file = await shared.microphone.record(wanted.seconds);
        said = await post(uploadPath(id, "recordings", `${fileTime(began)}.wav`), file);
        taken += 1;
        refused = 0;
      } catch (error) {
        if (stopped) break;
        if (!(error instanceof ApiError) || error.status === 0) {
          await stop();
          throw error;
        }
        said = { problems: [error.message] };
        refused += 1;
      }
      tell(t("setup.recording", { taken, count: wanted.count }), said.problems);
      await shared.reload();
      const wait = began + 1000 * wanted.every_s - Date.now();
      if (wait > 0 && taken < wanted.count) await new Promise((done) => setTimeout(done, wait));
    }
    await stop();
  };
  const canRecord = () => ["browser", "microphone", "stream"].includes(shared.made.kind);
  const controls = h(
    "div",
    {},
    h(
      "div",
      { class: "fields" },
      labelled(t("setup.record_count"), count),
      labelled(t("setup.record_seconds"), seconds),
      labelled(t("setup.record_every"), every),
    ),
    h(
      "p",
      { class: "row" },
      plainButton(t("setup.record"), begin, undefined, { main: true, sign: "fine" }),
      plainButton(t("setup.stop"), stop, shared.reload),
    ),
    meters.element,
    state,
  );
  replaceContent(
    element,
    heading(list("setup.steps")[1]),
    h("p", {}, t("setup.collect_how")),
    counter,
    controls,
    drop,
    nextButton(shared, 2),
  );
  return {
    element,
    draw: () => {
      const { made } = shared;
      const bar = (done, most, label) => h("progress", { max: most, value: Math.min(done, most), "aria-label": label });
      replaceContent(
        counter,
        h("p", { class: "lead" }, counterText(made)),
        bar(made.recordings, 20, list("setup.collected")[0]),
        bar(made.sessions, 3, list("setup.collected")[1]),
        h("p", { class: "small" }, made.missing || t("setup.enough")),
      );
      controls.hidden = !canRecord();
      const own = shared.made.kind === "folder";
      if (own || !drop.firstChild?.matches?.(".drop-zone"))
        replaceContent(drop, own ? h("p", {}, t("setup.put_there", { folder: made.folder })) : uploads(shared));
    },
    onSession: (session) => {
      meters.show(session.levels);
      const { taken, count } = session;
      const text = session.state === "recording" || taken ? t("setup.recording", { taken, count }) : "";
      tell(text, [...(session.last?.problems || []), session.problem].filter(Boolean));
      reloadSoon();
    },
  };
}

// ---- Listen ---------------------------------------------------------------------------------------------------------

function listen(shared) {
  const { id } = shared;
  const element = h("section", { class: "panel" });
  const verdict = h("div", { role: "status" });
  const odd = h("div", {});
  const groups = h("div", {});
  const all = h("details", {});
  const check = async (name) => {
    await post(apiPath("machines", id, "doctor"), { who: name });
    return t("jobs.doctor");
  };
  const mark = (files, change, text) =>
    actionButton(
      text,
      async (who) => {
        await update(apiPath("machines", id, "recordings"), { files, who, ...change });
        return t("setup.saved");
      },
      { after: shared.reload },
    );
  const sound = (file) => {
    const channels = shared.made.mono ? ["near"] : ["near", "far"];
    return channels.map((name) => ({
      name,
      src: `${apiPath("machines", id, "recordings", name)}?file=${encodeURIComponent(file)}`,
    }));
  };
  const left = (file) => shared.made.files.find((each) => each.file === file)?.left_out_by;
  const leftOut = (file, who) => [
    h("span", { class: "small" }, t("setup.thrown", { who })),
    mark([file], { keep: true }, t("setup.take_back")),
  ];
  const decide = (file) =>
    left(file)
      ? leftOut(file, left(file))
      : [mark([file], { keep: true }, t("setup.keep")), mark([file], { keep: false }, t("setup.throw_out"))];

  function drawAll() {
    const { made } = shared;
    const found = made.findings;
    const word = !found ? t("setup.not_checked") : found.stale ? t("setup.stale") : t(`findings.${found.verdict}`);
    replaceContent(
      verdict,
      h("p", { class: "lead" }, word),
      found && found.notes.map((text) => h("p", { class: "small" }, text)),
    );
    const shown = (found?.files || []).filter((each) => made.files.some((f) => f.file === each.file && !f.kept_by));
    const playing = odd.contains(document.activeElement);
    if (!playing || !shown.length || odd.dataset.of !== JSON.stringify([shown, made.files]))
      replaceContent(odd, shown.length ? [h("h3", {}, t("setup.findings")), player(shown.map(oddItem))] : null);
    odd.dataset.of = JSON.stringify([shown, made.files]);
    replaceContent(groups, (found?.groups || []).map(groupItem));
    const open = all.open;
    const items = made.files.slice(0, MOST_SHOWN).map((each) => ({
      label: [each.file, each.session && h("span", { class: "small" }, ` · ${each.session}`)],
      name: each.file,
      sounds: sound(each.file),
      answers: each.left_out_by
        ? leftOut(each.file, each.left_out_by)
        : mark([each.file], { keep: false }, t("setup.throw_out")),
    }));
    if (!all.contains(document.activeElement) || all.dataset.of !== JSON.stringify(made.files))
      replaceContent(
        all,
        h("summary", {}, t("setup.all", { count: made.files.length })),
        items.length > 0 && player(items),
      );
    all.dataset.of = JSON.stringify(made.files);
    all.open = open;
  }
  const oddItem = (each) => ({
    label: [
      h("b", {}, each.file),
      h("span", { class: each.usable ? "small" : "warning" }, ` ${each.texts.map(asSentence).join(" ")}`),
    ],
    name: each.file,
    sounds: each.usable ? sound(each.file) : [],
    missing: "",
    answers: decide(each.file),
  });
  const groupText = (files, value) => {
    const shown = `${files.slice(0, 3).join(", ")}${files.length > 3 ? " …" : ""}`;
    return t(value ? "setup.group_of" : "setup.group", { count: files.length, value, files: shown });
  };
  const groupItem = (each, g) => [
    h("h3", {}, t("setup.two_groups", { kind: t(`groups.${each.kind}`) })),
    h("p", { class: "small" }, t("setup.group_how")),
    each.files.map((files, i) => {
      const input = h("input", { type: "text", id: `group-${g}-${i}`, maxlength: 60, autocomplete: "off" });
      const name = async (who) => {
        if (!input.value.trim()) return t("setup.group_name");
        await update(apiPath("machines", id, "recordings"), { files, session: input.value.trim(), who });
        return t("setup.saved");
      };
      return h(
        "div",
        { class: "group" },
        player([
          {
            label: groupText(files, each.values[i]),
            name: files[0],
            sounds: sound(files[0]),
          },
        ]),
        labelled(t("setup.group_name"), input),
        h(
          "p",
          { class: "row" },
          actionButton(t("setup.name_it"), name, { after: shared.reload }),
          mark(files, { keep: false }, t("setup.throw_all")),
        ),
      );
    }),
  ];
  replaceContent(
    element,
    heading(list("setup.steps")[2]),
    h("p", {}, t("setup.check_why")),
    h("p", { class: "row" }, actionButton(t("setup.check"), check, { main: true, after: shared.reload })),
    verdict,
    odd,
    groups,
    all,
    nextButton(shared, 3),
  );
  return { element, draw: drawAll };
}

// ---- Fit ------------------------------------------------------------------------------------------------------------

function fitting(shared) {
  const { id } = shared;
  const element = h("section", { class: "panel" });
  const what = h("div", {});
  const done = h("div", {});
  const fit = async (name) => {
    await post(apiPath("machines", id, "fit"), { who: name });
    return t("jobs.fit");
  };
  const button = h("p", { class: "row" });
  replaceContent(element, heading(list("setup.steps")[3]), what, done, button);
  return {
    element,
    draw: async () => {
      const { made } = shared;
      replaceContent(
        what,
        h("p", {}, t("setup.fit_what", { recordings: made.recordings, count: Math.max(1, made.sessions) })),
        made.left_out > 0 && h("p", { class: "small" }, t("setup.thrown_out", { count: made.left_out })),
        made.missing && h("p", { class: "warning" }, made.missing),
      );
      const text = t(made.live ? "setup.fit_again" : "setup.fit");
      if (button.textContent !== text) {
        const focused = button.contains(document.activeElement);
        replaceContent(button, actionButton(text, fit, { main: !made.live, after: shared.reload }));
        if (focused) button.firstChild.focus();
      }
      const working = made.job?.kind === "fit" && !ENDED.includes(made.job.state);
      if (!made.live || working) {
        replaceContent(done);
        return;
      }
      const model = await get(apiPath("machines", id, "model"));
      const notes = made.job?.kind === "fit" && made.job.state === "done" ? made.job.notes : [model.why];
      replaceContent(
        done,
        h("p", { class: "lead" }, badge({ word: t("setup.live"), sign: "fine", kind: "fine" })),
        LATER.includes(made.kind) && h("p", {}, t(`after_fit.${made.kind}`)),
        h("h3", {}, t("setup.chosen")),
        h(
          "ul",
          {},
          notes.map((text) => h("li", {}, asSentence(text))),
        ),
        h("h3", {}, t("setup.promise")),
        h(
          "ul",
          {},
          model.set_point.promise.map((text) => h("li", {}, asSentence(text))),
        ),
        h(
          "p",
          { class: "row" },
          h("a", { class: "button main", href: `/machine/${encodeURIComponent(id)}` }, t("setup.to_machine")),
          h("a", { class: "button", href: `/model/${encodeURIComponent(id)}` }, t("setup.to_model")),
          h("a", { class: "button", href: "/health#messages" }, t("setup.to_people")),
        ),
      );
    },
  };
}

// A time for a file name in this device's zone: recordings of one day are one session.
export function fileTime(ms) {
  const t = new Date(ms);
  const two = (x) => String(x).padStart(2, "0");
  const day = `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())}`;
  return `${day}_${two(t.getHours())}-${two(t.getMinutes())}-${two(t.getSeconds())}`;
}
