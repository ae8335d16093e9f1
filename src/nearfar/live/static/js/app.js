// Loads the script of the screen that belongs to the URL.

import { ApiError } from "./api.js";
import { watchProblems } from "./bar.js";
import { at, h, here, note, replaceContent } from "./dom.js";
import { t } from "./texts.js";
import { refreshTimes, timeZone } from "./time.js";
import { asSentence } from "./words.js";

const SCREENS = [
  [/^\/$/, () => import("./machines.js")],
  [/^\/machine\/([^/]+)$/, () => import("./machine.js")],
  [/^\/event\/(\d+)$/, () => import("./event.js")],
  [/^\/model\/([^/]+)$/, () => import("./model.js")],
  [/^\/health$/, () => import("./health.js")],
  [/^\/guide$/, () => import("./guide.js")],
  [/^\/setup(?:\/([^/]+))?$/, () => import("./setup.js")],
];

async function start() {
  const main = document.getElementById("main");
  const path = here();
  if (path !== "/health") watchProblems(); // which shows the same, and more
  document.getElementById("zone").textContent = t("page.zone", { zone: timeZone() });
  document.getElementById("leave").hidden = !document.documentElement.dataset.session;
  for (const link of document.querySelectorAll(".top nav a")) {
    const exact = link.pathname === at(path);
    if (exact || (link.pathname === at("/") && /^\/(machine|event|model|setup)\b/.test(path)))
      link.setAttribute("aria-current", exact ? "page" : "true");
  }
  for (const link of document.querySelectorAll(".languages a"))
    link.addEventListener("click", () => {
      link.hash = window.location.hash; // the step of a set-up
    });
  try {
    for (const [pattern, load] of SCREENS) {
      const found = pattern.exec(path);
      if (found) {
        await (await load()).show(main, ...found.slice(1).map((part) => part && decodeURIComponent(part)));
        main.setAttribute("aria-busy", "false");
        document.getElementById(window.location.hash.slice(1))?.scrollIntoView(); // it was not there before
        refreshTimes();
        return;
      }
    }
    document.getElementById("live").hidden = true;
    replaceContent(
      main,
      h("h1", {}, t("app.no_page")),
      note(t("app.renamed"), " ", h("a", { href: "/" }, t("app.all_machines"))),
    );
  } catch (error) {
    document.getElementById("live").hidden = true;
    const text = error instanceof ApiError ? error.message : t("app.failed", { why: error.message });
    replaceContent(
      main,
      h("h1", {}, t(error.status === 404 ? "app.not_found" : "app.not_shown")),
      h("p", { class: "panel trouble", role: "alert" }, asSentence(text)),
      h(
        "p",
        { class: "row" },
        h("button", { onclick: () => window.location.reload() }, t("app.again")),
        h("a", { class: "button", href: "/" }, t("app.all_machines")),
      ),
    );
  }
  main.setAttribute("aria-busy", "false");
}

start();
