// A new machine from a folder of normal recordings: the form, and the progress of the jobs.

import { ApiError, apiPath, get, post, remove } from "./api.js";
import { announce, h, note, replaceContent } from "./dom.js";
import { asSentence } from "./words.js";

const POLL_MS = 1000;
const ENDED = ["done", "failed", "cancelled"];
const WORDS = { waiting: "Waiting", listening: "Listening", done: "Live", failed: "Failed", cancelled: "Cancelled" };

export function newMachine(arrived) {
  const element = h("section", { class: "panel", "aria-labelledby": "new", hidden: true });
  const intro = h("div", {});
  const list = h("ul", { class: "plain jobs" });
  const problem = h("p", { class: "warning", role: "alert", hidden: true });
  const field = (name, attributes) => h("input", { type: "text", name, autocomplete: "off", ...attributes });
  const name = field("name", { required: true, maxlength: 64, placeholder: "Pump 3" });
  const folder = field("folder", { required: true, placeholder: "/home/anna/normals/pump3" });
  const source = field("source", { placeholder: "mic, or a folder, or rtsp://..." });
  const form = h(
    "form",
    { class: "new-machine", onsubmit: submit },
    h("label", {}, "Name of the machine", name),
    h("label", {}, "Folder of its normal recordings, on this computer", folder),
    h("label", {}, "Listen to, from then on (may stay empty)", source),
    problem,
    h("p", { class: "row" }, h("button", { class: "main" }, "Listen to the normals")),
  );
  replaceContent(element, h("h2", { id: "new" }, "New machine"), intro, form, list);
  let timer = 0;
  const seen = new Set(); // jobs that were running: only their end is news

  async function submit(event) {
    event.preventDefault();
    problem.hidden = true;
    const id = name.value.trim().replace(/[^A-Za-z0-9_-]+/g, "-").replace(/^[-_]+|-+$/g, "");
    try {
      const job = await post("/v1/machines", {
        id,
        name: name.value.trim(),
        folder: folder.value,
        source: source.value.trim(),
      });
      seen.add(job.id);
      form.reset();
      await load();
    } catch (error) {
      problem.textContent = asSentence(error instanceof ApiError ? error.message : String(error));
      problem.hidden = false;
    }
  }

  async function load() {
    clearTimeout(timer);
    const found = await get("/v1/jobs");
    element.hidden = !found.possible;
    for (const job of found.jobs) {
      if (!ENDED.includes(job.state)) seen.add(job.id);
      else if (seen.delete(job.id)) {
        announce(job.state === "done" ? `${job.name} is live.` : `${job.name}: ${job.what}`);
        if (job.state === "done") arrived();
      }
    }
    replaceContent(list, found.jobs.map((job) => jobItem(job, load)));
    if (found.jobs.some((job) => !ENDED.includes(job.state)))
      timer = setTimeout(() => load().catch(() => {}), POLL_MS);
  }

  const first = (isFirst) =>
    replaceContent(
      intro,
      isFirst
        ? [
            h("p", {}, "nearfar learns how a machine sounds when it runs as it should, and alarms when it does not."),
            h(
              "ol",
              {},
              h("li", {}, "Record it while it is healthy: 20 recordings of 10 s or more, at every speed and load."),
              h("li", {}, "Ten minutes on each of three days promise more than an hour today."),
              h("li", {}, "Name the folder here. It is listened to, and then the machine is watched."),
            ),
            note("To record with a microphone of this computer: ", h("code", {}, "nearfar record -o FOLDER")),
          ]
        : [],
    );
  return { element, load, first };
}

function jobItem(job, reload) {
  const running = !ENDED.includes(job.state);
  const cancel = () => remove(apiPath("jobs", job.id)).then(reload, (error) => announce(error.message));
  return h(
    "li",
    {},
    h("p", {}, h("b", {}, `${WORDS[job.state]}: ${job.name}`), ` · ${asSentence(job.what || "begins soon")}`),
    running &&
      h("progress", {
        "aria-label": `Listening to the normals of ${job.name}`,
        max: job.total || 1,
        value: job.total ? job.done : false,
      }),
    running && h("p", { class: "row" }, h("button", { type: "button", onclick: cancel }, "Cancel")),
    job.notes.length > 0 && h("ul", { class: "small" }, job.notes.map((text) => h("li", {}, asSentence(text)))),
    job.state === "done" &&
      h("p", {}, h("a", { href: `/model/${encodeURIComponent(job.machine)}` }, "What it learned, and its set-point")),
  );
}
