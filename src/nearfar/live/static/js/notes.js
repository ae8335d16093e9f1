// The notes on the time line of a machine: what was done to it, and what people call a time or a recording.

import { actionButton } from "./actions.js";
import { apiPath, get, post, update } from "./api.js";
import { h, panel, replaceContent } from "./dom.js";
import { t } from "./texts.js";
import { timeElement } from "./time.js";

// A panel for the machine `id`: `draw(notes)` shows them, `begin(at)` asks for a note at a time; `after()` is called
// when one was changed.
export function notesPanel(id, after) {
  const list = h("ul", { class: "plain" });
  const what = h("input", { type: "text", maxlength: 200, autocomplete: "off" });
  const when = h("input", { type: "datetime-local", step: 1 });
  const write = async (who) => {
    if (!what.value.trim()) return t("notes.empty");
    const at = when.value ? new Date(when.value).getTime() / 1000 : null;
    await post(apiPath("machines", id, "notes"), { text: what.value, at, who });
    what.value = when.value = "";
    return t("notes.written");
  };
  const form = h(
    "form",
    { class: "new-machine", onsubmit: (event) => event.preventDefault() },
    h("label", {}, t("notes.what"), what),
    h("label", {}, t("notes.when"), when),
    h("p", { class: "row" }, actionButton(t("notes.write"), write, { after })),
  );
  const fold = h("details", {}, h("summary", {}, t("notes.new")), form);
  const element = panel("notes", t("notes.title"), h("p", { class: "small" }, t("notes.how")), list, fold);
  return {
    element,
    draw: (notes) => {
      if (!list.contains(document.activeElement)) replaceContent(list, notes.map((note) => item(id, note, after)));
    },
    begin: (at) => {
      const local = new Date(at * 1000);
      when.value = new Date(local.getTime() - local.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
      fold.open = true;
      what.focus();
    },
  };
}

function item(id, note, after) {
  const put = (text, said) => async (who) => {
    await update(apiPath("machines", id, "notes", String(note.id)), { text: text(), who });
    return said;
  };
  const field = h("input", { type: "text", value: note.text, maxlength: 200, "aria-label": t("notes.what") });
  const save = actionButton(
    t("notes.save"),
    put(() => field.value, t("notes.written")),
    { after },
  );
  const change = h("button", { type: "button" }, t("notes.change"));
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
      note.event && h("a", { class: "small", href: `/event/${note.event}` }, t("machine.event", { id: `${note.event}` })),
    ),
    change,
    actionButton(
      t("notes.remove"),
      put(() => "", t("notes.removed")),
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
    return t("notes.written");
  };
  return { field, button: actionButton(t("notes.save"), save, { after }) };
}
