// Advice on microphones, as docs/microphones.md gives it at length: which, where, how long, and what to do on an alarm.

import { at, h, panel, replaceContent, setTitle } from "./dom.js";
import { list, t } from "./texts.js";

export async function show(main) {
  setTitle(t("guide.title"));
  document.getElementById("live").hidden = true;
  const [right, wrong] = await Promise.all([
    picture("microphones-right", t("guide.right")),
    picture("microphones-wrong", t("guide.wrong")),
  ]);
  const items = (key) =>
    h(
      "ul",
      {},
      list(key).map((text) => h("li", {}, text)),
    );
  replaceContent(
    main,
    h("div", { class: "title" }, h("h1", {}, t("guide.title"))),
    panel("where", t("guide.where"), right, items("guide.where_how"), wrong),
    panel("which", t("guide.which"), items("guide.which_how")),
    panel("long", t("guide.long"), items("guide.long_how")),
    panel("on-alarm", t("guide.alarm"), items("guide.alarm_how")),
    panel("deaf", t("guide.deaf"), items("guide.deaf_how")),
  );
}

// A picture with its words in the reader's language: they stand in the catalogue under `data-text`.
async function picture(name, title) {
  const answer = await fetch(at(`/static/${name}.svg`));
  const svg = new DOMParser().parseFromString(await answer.text(), "image/svg+xml").documentElement;
  svg.querySelector("title").textContent = title;
  for (const text of svg.querySelectorAll("text")) text.textContent = t(`pictures.${text.dataset.text}`);
  return h("figure", { class: "drawn" }, svg);
}
