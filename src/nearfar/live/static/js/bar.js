// The bar on every page: what keeps the server from recording or delivering, such as a full disk.

import { get } from "./api.js";
import { at, h, replaceContent } from "./dom.js";
import { t } from "./texts.js";
import { asSentence } from "./words.js";

const POLL_MS = 10000;

export function watchProblems() {
  const bar = document.getElementById("bar");
  let shown = "";
  const look = async () => {
    let problems;
    try {
      problems = (await get("/v1/health")).problems;
    } catch {
      return; // the page itself says that there is no connection
    }
    const text = problems.map(asSentence).join(" ");
    if (text === shown) return;
    shown = text;
    bar.hidden = !text;
    replaceContent(bar, h("span", {}, text), " ", h("a", { href: at("/health") }, t("page.health")));
  };
  look();
  setInterval(look, POLL_MS);
}
