"use strict";
// Draws every figure of the page, in the colours of the reader's theme.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const finePointer = matchMedia("(pointer: fine)").matches;
  const config = { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false };

  const figures = [...document.querySelectorAll(".plot[data-figure]")].map((place) => ({
    place,
    source: document.getElementById(place.dataset.figure)?.textContent,
  }));

  // Figures name CSS variables as colours, because plotly itself cannot read them.
  const themed = (source) => {
    const style = getComputedStyle(root);
    return JSON.parse(source, (key, value) => {
      if (typeof value !== "string" || !value.startsWith("var(--")) return value;
      return style.getPropertyValue(value.slice(4, -1)).trim();
    });
  };

  const hidden = (place) => {
    const buttons = place.closest("section")?.querySelectorAll('.legend button[aria-pressed="false"]') ?? [];
    return new Set([...buttons].map((button) => button.dataset.trace));
  };

  const draw = ({ place, source }) => {
    const figure = themed(source);
    // On a touch screen a finger on a plot scrolls the page; only a mouse zooms.
    figure.layout.dragmode = finePointer ? "zoom" : false;
    figure.layout.autosize = true;
    const names = hidden(place);
    for (const trace of figure.data) if (names.has(trace.name)) trace.visible = false;
    return Plotly.react(place, figure.data, figure.layout, config);
  };

  const drawAll = async () => {
    let drawn = 0;
    for (const figure of figures.filter(({ source }) => source)) {
      try {
        await draw(figure);
        drawn += 1;
      } catch (error) {
        figure.place.textContent = "This plot could not be drawn.";
        console.error(error);
      }
    }
    root.dataset.plots = String(drawn);
    root.dataset.theme = dark.matches ? "dark" : "light";
  };

  // A page that changes while it is open gives a figure new content.
  root.addEventListener("figure", ({ detail }) => {
    const figure = figures.find(({ place }) => place.dataset.figure === detail.name);
    if (!figure || figure.source === detail.source) return;
    figure.source = detail.source;
    draw(figure);
  });

  // A section's legend hides and shows a method in all plots of the section.
  const filter = (button) => {
    const visible = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(visible));
    for (const place of button.closest("section").querySelectorAll(".js-plotly-plot")) {
      const traces = place.data.flatMap((trace, index) => (trace.name === button.dataset.trace ? [index] : []));
      if (traces.length) Plotly.restyle(place, { visible }, traces);
    }
  };
  document.addEventListener("click", ({ target }) => {
    const button = target.closest(".legend button");
    if (button) filter(button);
  });

  root.dataset.plotsExpected = String(figures.filter(({ source }) => source).length);
  dark.addEventListener("change", drawAll);
  drawAll();
})();
