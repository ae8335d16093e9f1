// What people do. Every action is recorded with a name and reports its result; the newest change can be taken back.

import { ApiError, apiPath, post, savedName, saveName } from "./api.js";
import { announce, h, here } from "./dom.js";
import { t } from "./texts.js";
import { timeElement } from "./time.js";
import { actionText, asSentence } from "./words.js";

// The name that is recorded with an action: asked for once, then kept in this browser. "" if the reader cancels.
export function userName() {
  const name = savedName();
  return name ? Promise.resolve(name) : askUserName();
}

function askUserName() {
  return new Promise((done) => {
    const input = h("input", { type: "text", id: "who", maxlength: 40, required: true, autocomplete: "name" });
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", {}, t("actions.who")),
      h("p", {}, t("actions.why")),
      h("label", { for: "who" }, t("actions.name")),
      h("p", {}, input),
      h(
        "p",
        { class: "row" },
        h("button", { class: "main", value: "ok" }, t("actions.go_on")),
        h("button", { value: "", formnovalidate: true }, t("actions.cancel")),
      ),
    );
    const dialog = h("dialog", { "aria-label": t("actions.who") }, form);
    document.body.append(dialog);
    dialog.addEventListener("close", () => {
      const name = dialog.returnValue === "ok" ? input.value.trim() : "";
      if (name) saveName(name);
      dialog.remove();
      done(name);
    });
    dialog.showModal();
    input.focus();
  });
}

// A button for work(name) -> the text to announce. It is disabled while the work runs; errors are announced too.
export function actionButton(text, work, { main = false, after, ...rest } = {}) {
  const button = h("button", { type: "button", class: main ? "main" : null, ...rest }, text);
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-disabled") === "true") return;
    const name = await userName();
    if (!name) return;
    button.setAttribute("aria-disabled", "true"); // not `disabled`, which would lose the focus
    try {
      announce(await work(name));
      await after?.();
    } catch (error) {
      announce(error instanceof ApiError ? error.message : t("actions.failed", { why: error.message }));
    }
    button.removeAttribute("aria-disabled");
  });
  return button;
}

// The work of a button that answers an event with `verdict` and `remark()`; returns `text`, or what the server says.
export function answerAction(event, verdict, text, remark = () => ({})) {
  return async (name) => {
    const done = await post(apiPath("events", event.id, "feedback"), { verdict, who: name, ...remark() });
    return text || `${done.message} ${asSentence(done.note)}`;
  };
}

// Audit entries as a list; the newest change of a model gets a button that takes it back and announces `undone`.
export function auditList(entries, after, undone) {
  const item = (entry) => {
    const undo = async (name) => {
      await post(apiPath("audit", entry.id, "undo"), { who: name });
      return undone;
    };
    const text = actionText(entry.action);
    const shown = here() === `/event/${entry.event_id}`;
    return h(
      "li",
      {},
      h(
        "div",
        { class: "row" },
        h(
          "span",
          {},
          timeElement(entry.at),
          ` ${entry.who}: `,
          entry.event_id && !shown ? h("a", { href: `/event/${entry.event_id}` }, text) : text,
          entry.text && h("span", { class: "small" }, ` ${entry.text}`),
        ),
        entry.can_undo && actionButton(t("actions.take_back"), undo, { after }),
      ),
      entry.note && h("p", { class: "warning" }, asSentence(entry.note)),
    );
  };
  return h("ul", { class: "plain" }, entries.map(item));
}
