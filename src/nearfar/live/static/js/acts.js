// What people do: every action carries a name, reports what happened, and can be taken back where that makes sense.

import { ApiError, remember, who } from "./api.js";
import { h, say } from "./dom.js";

// The name that is noted beside an action; asked for once, kept in this browser.
export function actor() {
  const known = who();
  return known ? Promise.resolve(known) : askName();
}

export function askName() {
  return new Promise((done) => {
    const input = h("input", { type: "text", id: "who", maxlength: 40, required: true, autocomplete: "name", value: who() });
    const form = h("form", { method: "dialog" }, h("h2", {}, "Who are you?"),
      h("p", {}, "Your name is noted beside what you did, so that others can ask. It is kept in this browser."),
      h("label", { for: "who" }, "Name or initials"), h("p", {}, input),
      h("p", { class: "row" }, h("button", { class: "main", value: "ok" }, "Go on"), h("button", { value: "", formnovalidate: true }, "Cancel")));
    const dialog = h("dialog", { "aria-label": "Who are you?" }, form);
    document.body.append(dialog);
    dialog.addEventListener("close", () => {
      const name = dialog.returnValue === "ok" ? input.value.trim() : "";
      if (name) remember(name);
      dialog.remove();
      done(name);
    });
    dialog.showModal();
    input.focus();
  });
}

// A button that does something as somebody: work(name) -> what to say. Disabled meanwhile; errors are said.
export function act(text, work, { main = false, after, ...rest } = {}) {
  const button = h("button", { type: "button", class: main ? "main" : null, ...rest }, text);
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-disabled") === "true") return;
    const name = await actor();
    if (!name) return;
    button.setAttribute("aria-disabled", "true"); // not `disabled`, which would lose the focus
    try {
      say(await work(name));
      await after?.();
    } catch (error) {
      say(error instanceof ApiError ? error.message : `That failed: ${error.message}`);
    }
    button.removeAttribute("aria-disabled");
  });
  return button;
}
