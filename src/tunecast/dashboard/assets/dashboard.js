"use strict";
// Follows a session: parts of the page and figures are replaced when the server sends new ones.
(() => {
  const session = document.getElementById("session");
  const address = session?.dataset.events;
  if (!address) return;
  const root = document.documentElement;
  const connection = document.getElementById("connection");
  let source = null;

  // The reader's focus, open details and scrolled lists outlive a replacement.
  const replace = (place, html) => {
    const focused = place.contains(document.activeElement) ? document.activeElement : null;
    const key = focused?.dataset.key ?? focused?.getAttribute("aria-label");
    const open = [...place.querySelectorAll("details")].map((one) => one.open);
    const scrolled = [...place.querySelectorAll(".log, .scroll")].map((one) => [one.scrollTop, one.scrollLeft]);
    place.innerHTML = html;
    place.querySelectorAll("details").forEach((one, index) => { one.open = open[index] ?? false; });
    place.querySelectorAll(".log, .scroll").forEach((one, index) => {
      [one.scrollTop, one.scrollLeft] = scrolled[index] ?? [0, 0];
    });
    if (!key) return;
    const same = [...place.querySelectorAll("[data-key], [aria-label]")];
    same.find((one) => one.dataset.key === key || one.getAttribute("aria-label") === key)?.focus({ preventScroll: true });
  };

  const showParts = (parts) => {
    for (const [name, { html, version }] of Object.entries(parts)) {
      const place = session.querySelector(`[data-part="${name}"]`);
      if (!place || place.dataset.version === version) continue;
      replace(place, html);
      place.dataset.version = version;
    }
  };

  const showLegend = (html) => {
    for (const place of session.querySelectorAll("[data-legend]")) showLegendAt(place, html);
  };

  const showLegendAt = (place, html) => {
    const names = (from) => [...from.querySelectorAll("[data-trace]")].map((one) => one.dataset.trace).join("\n");
    const next = document.createElement("div");
    next.innerHTML = html;
    if (names(next) === names(place)) return;
    const off = [...place.querySelectorAll('[aria-pressed="false"]')].map((one) => one.dataset.trace);
    replace(place, html);
    for (const button of place.querySelectorAll("button")) {
      if (off.includes(button.dataset.trace)) button.setAttribute("aria-pressed", "false");
    }
  };

  const showFigures = (figures, captions) => {
    for (const [name, json] of Object.entries(figures)) {
      const place = session.querySelector(`[data-figure-of="${name}"]`);
      if (!place) continue;
      place.hidden = false;
      session.querySelector("[data-without-figures]").hidden = true;
      session.querySelector("[data-more-figures]").hidden = false;
      root.dispatchEvent(new CustomEvent("figure", { detail: { name: `figure-${name}`, source: json } }));
    }
    for (const [name, text] of Object.entries(captions)) {
      const place = session.querySelector(`[data-caption="${name}"]`);
      if (place && place.textContent !== text) place.textContent = text;
    }
  };

  const update = ({ data }) => {
    const { parts, figures, captions, legend, ended } = JSON.parse(data);
    showParts(parts);
    showLegend(legend);
    showFigures(figures, captions);
    root.dataset.updates = String(Number(root.dataset.updates ?? 0) + 1);
    if (ended) document.getElementById("steer")?.remove();
  };

  const open = () => {
    if (source) return;
    source = new EventSource(address);
    source.addEventListener("update", update);
    source.addEventListener("open", () => { connection.textContent = ""; });
    source.addEventListener("error", () => { connection.textContent = "The dashboard does not answer; what is shown may be old."; });
  };
  const close = () => { source?.close(); source = null; };

  // A browser opens only a few connections to one server: hidden pages release theirs.
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  open();
})();
