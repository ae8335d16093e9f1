// The notes on the time line of a machine: what was done to it, and what people call a time or a recording.

import { actionButton } from "./actions.js";
import { apiPath, get, post, update } from "./api.js";
import { h, panel, replaceContent } from "./dom.js";
import { timeElement } from "./time.js";

const TEXT = {
  title: "Notes",
  how: "What was done or seen, such as “bearing changed”. It stands on the trend, beside its recording, and in the report.",
  what: "Note",
  when: "When (empty: now)",
  write: "Write it down",
  written: "Written down.",
  change: "Change",
  save: "Save",
  remove: "Delete",
  removed: "Deleted.",
  ofEvent: (id) => `Event ${id}`,
  empty: "Write something first.",
};

// A panel for the machine `id`: `draw(notes)` shows them, `begin(at)` asks for a note at a time; `after()` is called
// when one was changed.
export function notesPanel(id, after) {
  const list = h("ul", { class: "plain" });
  const what = h("input", { type: "text", maxlength: 200, autocomplete: "off" });
  const when = h("input", { type: "datetime-local", step: 1 });
  const write = async (who) => {
    if (!what.value.trim()) return TEXT.empty;
    const at = when.value ? new Date(when.value).getTime() / 1000 : null;
    await post(apiPath("machines", id, "notes"), { text: what.value, at, who });
    what.value = when.value = "";
    return TEXT.written;
  };
  const element = panel(
    "notes",
    TEXT.title,
    h("p", { class: "small" }, TEXT.how),
    list,
    h(
      "form",
      { class: "new-machine", onsubmit: (event) => event.preventDefault() },
      h("label", {}, TEXT.what, what),
      h("label", {}, TEXT.when, when),
      h("p", { class: "row" }, actionButton(TEXT.write, write, { after })),
    ),
  );
  return {
    element,
    draw: (notes) => {
      if (!list.contains(document.activeElement)) replaceContent(list, notes.map((note) => item(id, note, after)));
    },
    begin: (at) => {
      const local = new Date(at * 1000);
      when.value = new Date(local.getTime() - local.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
      what.focus();
    },
  };
}

function item(id, note, after) {
  const put = (text, said) => async (who) => {
    await update(apiPath("machines", id, "notes", String(note.id)), { text: text(), who });
    return said;
  };
  const field = h("input", { type: "text", value: note.text, maxlength: 200, "aria-label": TEXT.what });
  const save = actionButton(
    TEXT.save,
    put(() => field.value, TEXT.written),
    { after },
  );
  const change = h("button", { type: "button" }, TEXT.change);
  const line = h(
    "li",
    { class: "row" },
    h(
      "span",
      {},
      h("b", {}, note.text),
      " ",
      timeElement(note.at),
      h("span", { class: "small" }, ` ${note.who} `),
      note.event && h("a", { class: "small", href: `/event/${note.event}` }, TEXT.ofEvent(note.event)),
    ),
    change,
    actionButton(
      TEXT.remove,
      put(() => "", TEXT.removed),
      { after },
    ),
  );
  change.addEventListener("click", () => {
    replaceContent(line, field, save);
    field.focus();
  });
  return line;
}

// All notes of a machine.
export async function notesOf(id) {
  return (await get(apiPath("machines", id, "notes"))).notes;
}

// The field that names an event.
export function eventName(event, after) {
  const field = h("input", { type: "text", id: "label", value: event.label, maxlength: 200, autocomplete: "off" });
  const save = async (who) => {
    await update(apiPath("events", event.id, "label"), { text: field.value, who });
    return TEXT.written;
  };
  return { field, button: actionButton(TEXT.save, save, { after }) };
}
