// Live updates: server-sent events, which reconnect by themselves and go on where they stopped; else a question now and then.

const POLL_MS = 15000;

export function listen(handlers) {
  const place = document.getElementById("live");
  const show = (on, text) => {
    if (place.lastElementChild.textContent === text) return;
    place.className = `live ${on ? "on" : "off"}`;
    place.lastElementChild.textContent = text;
  };
  const source = new EventSource("/v1/stream");
  let late = 0;
  source.onopen = () => {
    if (late) handlers.resync?.();
    clearInterval(late);
    late = 0;
    show(true, "live");
  };
  source.onerror = () => {
    show(false, "no connection, trying again");
    late ||= setInterval(() => handlers.resync?.(), POLL_MS);
  };
  for (const [kind, handle] of Object.entries(handlers)) {
    source.addEventListener(kind, (message) => handle(JSON.parse(message.data)));
  }
  window.addEventListener("pagehide", () => source.close());
  window.addEventListener("pageshow", (shown) => { if (shown.persisted) window.location.reload(); });
}

// Calls `work` soon, once, however often it is asked.
export function soon(work, ms = 400) {
  let waiting = 0;
  return () => {
    waiting ||= setTimeout(() => { waiting = 0; work(); }, ms);
  };
}
