// A place to drop recordings on, or to choose them from; it sends one after the other and tells how far it is.

import { apiPath, post } from "./api.js";
import { h, replaceContent } from "./dom.js";
import { t } from "./texts.js";
import { asSentence } from "./words.js";

const ACCEPT = ".wav,.flac,.ogg,.mp3,.aiff,.aif";

// path(file) is the address that a file is sent to; `sent(file, answer)` is called for each, and `done()` at the end.
export function dropZone({ label = t("drop.choose"), path, sent = () => {}, done = () => {} }) {
  const input = h("input", { type: "file", multiple: true, accept: ACCEPT });
  const progress = h("p", { class: "small", role: "status" });
  const problems = h("ul", { class: "plain warning" });
  const zone = h("label", { class: "drop" }, h("b", {}, label), h("span", { class: "small" }, t("drop.kinds")), input);
  const send = async (files) => {
    const list = [...files];
    let count = 0;
    replaceContent(problems);
    for (const [i, file] of list.entries()) {
      progress.textContent = t("drop.sending", { number: i + 1, count: list.length, name: file.name });
      try {
        sent(file, await post(path(file), file));
        count += 1;
      } catch (error) {
        const text = error.message.startsWith(file.name) ? error.message : `${file.name}: ${error.message}`;
        problems.append(h("li", {}, asSentence(text)));
      }
    }
    progress.textContent = t("drop.sent", { count });
    input.value = "";
    done();
  };
  input.addEventListener("change", () => send(input.files));
  for (const kind of ["dragenter", "dragover"])
    zone.addEventListener(kind, (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
  for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    send(event.dataTransfer.files);
  });
  return h("div", { class: "drop-zone" }, zone, progress, h("div", { role: "alert" }, problems));
}

// The address of a machine that takes recordings: its own `what`, such as score.
export const uploadPath = (machine, what, name, more = "") =>
  `${apiPath("machines", machine, what)}?name=${encodeURIComponent(name)}${more}`;
