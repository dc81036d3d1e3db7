// Keeps #live up to date with fragments from the server. The server escapes them; this script builds no HTML from data.
const live = document.getElementById("live");
const state = document.getElementById("live-state");
const pause = document.getElementById("live-pause");
const STALE_MS = 5000;
const RETRY_MS = 5000;
let source = null;
let paused = false;
let retry = 0;
let stale = 0;

const lastUpdate = () => live.querySelector(".asof time")?.textContent ?? "never";

function setState(kind, text) {
  if (state.dataset.kind === kind) return; // a screen reader announces changes, not every second
  state.dataset.kind = kind;
  state.textContent = text;
  live.classList.toggle("stale", kind !== "on");
}

const lost = () => setState("lost", `Connection lost, last update ${lastUpdate()} UTC. Reconnecting.`);

// Do not replace content while the user selects text in it or presses a link.
const isBusy = () => {
  const selection = getSelection();
  return (!selection.isCollapsed && live.contains(selection.anchorNode)) || live.querySelector(":active") !== null;
};

function show(html) {
  clearTimeout(stale);
  stale = setTimeout(lost, STALE_MS);
  setState("on", "Up to date");
  if (isBusy()) return;
  const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
  const { scrollX, scrollY } = window;
  live.innerHTML = html;
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  if (scrollX !== window.scrollX || scrollY !== window.scrollY) scrollTo({ left: scrollX, top: scrollY, behavior: "instant" });
}

function stop() {
  source?.close();
  source = null;
  clearTimeout(retry);
  clearTimeout(stale);
}

function start() {
  stop();
  if (paused || document.hidden) return;
  source = new EventSource("/live");
  source.addEventListener("live", (event) => show(event.data));
  source.addEventListener("error", () => {
    lost();
    if (source?.readyState === EventSource.CLOSED) retry = setTimeout(start, RETRY_MS);
  });
}

pause.hidden = false;
pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  start();
  if (paused) setState("paused", `Paused at ${lastUpdate()} UTC`);
});
document.addEventListener("visibilitychange", start);
addEventListener("pagehide", stop);
addEventListener("pageshow", (event) => event.persisted && start());
start();
