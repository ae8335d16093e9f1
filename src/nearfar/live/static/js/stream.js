// Live updates by server-sent events. The browser reconnects by itself and continues where it stopped; until then the
// page polls.

import { at } from "./dom.js";
import { t } from "./texts.js";

const POLL_MS = 15000;

// handlers: { kind of message: function of its data, resync: function that loads everything again }
export function subscribe(handlers) {
  const label = document.getElementById("live");
  const show = (on, text) => {
    if (label.lastElementChild.textContent === text) return;
    label.className = `live ${on ? "on" : "off"}`;
    label.lastElementChild.textContent = text;
  };
  const source = new EventSource(at("/v1/stream"));
  let polling = 0;
  source.onopen = () => {
    if (polling) handlers.resync?.();
    clearInterval(polling);
    polling = 0;
    show(true, t("stream.live"));
  };
  source.onerror = () => {
    show(false, t("stream.lost"));
    polling ||= setInterval(() => handlers.resync?.(), POLL_MS);
  };
  for (const [kind, handle] of Object.entries(handlers)) {
    source.addEventListener(kind, (message) => handle(JSON.parse(message.data)));
  }
  window.addEventListener("pagehide", () => source.close());
  window.addEventListener("pageshow", (shown) => {
    if (shown.persisted) window.location.reload();
  });
}

// A function that calls `work` once, `ms` after the first of several calls.
export function throttle(work, ms = 400) {
  let waiting = 0;
  return () => {
    waiting ||= setTimeout(() => {
      waiting = 0;
      work();
    }, ms);
  };
}
