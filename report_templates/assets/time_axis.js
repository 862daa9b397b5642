"use strict";
// What all charts over time share: the axis, the crosshair on every chart at once, and the range that
// is dragged out and becomes the filter's.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;
  const MARGIN = { l: 112, r: 14 };
  const NARROW = { l: 58, r: 6 };
  const LEAST_DRAG = 4;
  const DAY_MS = 86_400_000;
  const areas = new Set();

  /** Round times from `from` to `to`, about so many. */
  function ticks(from, to, wanted) {
    const rough = Math.max((to - from) / wanted, 1);
    const steps =
      rough < 60e9
        ? decimal(rough)
        : [60e9, 120e9, 300e9, 600e9, 900e9, 1800e9, 3600e9, 7200e9, 21600e9, 43200e9, 86400e9];
    const step = steps.find((s) => s >= rough) ?? Math.ceil(rough / 86400e9) * 86400e9;
    const first = Math.ceil(from / step) * step;
    const result = [];
    for (let i = 0; first + i * step <= to; i++) result.push(first + i * step);
    return result;
  }

  function decimal(rough) {
    const power = 10 ** Math.floor(Math.log10(rough));
    const seconds =
      power >= 10e9 ? [10e9, 15e9, 30e9, 60e9] : [power, 2 * power, 5 * power, 10 * power];
    return seconds;
  }

  /** When the capture began, as its first tick says it; without clock times only that it began. */
  function began() {
    const start = new Date(pk.data.page.start_unix_ms);
    return start.getTime() < DAY_MS ? "0 s" : `${start.toISOString().slice(11, 19)} UTC`;
  }

  const margins = (width) => (width < 560 ? NARROW : MARGIN);

  /** Plotly's x axis for the whole capture; x is in ns. */
  function axis(width, { labels = true } = {}) {
    const end = pk.data.page.duration_ns;
    const { l, r } = margins(width);
    const at = ticks(0, end, Math.max(2, Math.floor((width - l - r) / 110)));
    return {
      range: [0, end],
      fixedrange: true,
      tickvals: at,
      ticktext: at.map((time) => (time === 0 ? "" : pk.format.plotly(pk.format.duration(time)))),
      showticklabels: labels,
      showgrid: true,
      gridcolor: pk.theme.colour("--line"),
      zeroline: false,
      ticks: "",
    };
  }

  /** The first tick's text: centred under the axis it would lie on the figure at its foot. */
  const beginning = () => ({
    x: 0,
    y: 0,
    xref: "x",
    yref: "paper",
    xanchor: "left",
    yanchor: "top",
    xshift: -2,
    text: pk.format.plotly(began()),
    showarrow: false,
  });

  /** Plotly's layout for a chart over time, without its axes. */
  function layout(width, height, { labels = true } = {}) {
    const { l, r } = margins(width);
    return {
      width,
      height,
      margin: { l, r, t: 6, b: 20 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      hovermode: false,
      showlegend: false,
      annotations: labels ? [beginning()] : [],
      font: {
        family: getComputedStyle(document.body).fontFamily,
        size: 11,
        color: pk.theme.colour("--text-3"),
      },
    };
  }

  /**
   * The transparent area over a chart: crosshair, tip and drag. `describe(time, event)` returns
   * [title, rows] for the tip, or null. Shaded are `shifts`, and paler the page's spikes.
   */
  function cover(chart, describe, shifts = []) {
    const line = el("div", { class: "crosshair", hidden: true });
    const drag = el("div", { class: "brush", hidden: true });
    const before = el("div", { class: "brush is-outside", hidden: true });
    const after = el("div", { class: "brush is-outside", hidden: true });
    const area = el("div", { class: "timechart-area" }, before, after, drag, line);
    area.prepend(...spikes().map((mark) => band(mark, "is-spike")), ...united(shifts).map((one) => band(one)));
    chart.append(area);
    const self = { area, line, before, after };
    areas.add(self);
    const timeAt = (event) => {
      const box = area.getBoundingClientRect();
      const ratio = box.width ? (event.clientX - box.left) / box.width : 0;
      return Math.min(Math.max(ratio, 0), 1) * pk.data.page.duration_ns;
    };
    let from = null;
    area.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      from = event;
      area.setPointerCapture(event.pointerId);
    });
    area.addEventListener("pointermove", (event) => {
      const time = timeAt(event);
      crosshair(time);
      if (from && Math.abs(event.clientX - from.clientX) >= LEAST_DRAG)
        span(drag, timeAt(from), time);
      const said = from ? [range(timeAt(from), time), []] : describe(time, event);
      if (said) pk.dom.showTip(pk.dom.facts(...said), event.clientX, event.clientY);
      else pk.dom.hideTip();
    });
    area.addEventListener("pointerup", (event) => {
      const start = from;
      from = null;
      drag.hidden = true;
      if (!start || Math.abs(event.clientX - start.clientX) < LEAST_DRAG) return;
      const [low, high] = [timeAt(start), timeAt(event)].sort((a, b) => a - b);
      pk.filter.set({ from_ns: low, to_ns: high });
    });
    area.addEventListener("pointercancel", () => ((from = null), (drag.hidden = true)));
    area.addEventListener("pointerleave", () => (crosshair(null), pk.dom.hideTip()));
    show(self, pk.filter.state);
    return {
      area,
      /** Puts the area over the plot of a chart of this size. */
      place(width, top, height) {
        const { l, r } = margins(width);
        Object.assign(area.style, {
          left: `${l}px`,
          top: `${top}px`,
          width: `${width - l - r}px`,
          height: `${height}px`,
        });
      },
    };
  }

  const spikes = () => (pk.data.page.marks ?? []).filter(({ kind }) => kind === "spike");

  /** Ranges without overlaps, so that none is shaded twice. */
  function united(ranges) {
    const result = [];
    for (const { from_ns, to_ns } of [...ranges].sort((x, y) => x.from_ns - y.from_ns)) {
      const last = result.at(-1);
      if (last && from_ns <= last.to_ns) last.to_ns = Math.max(last.to_ns, to_ns);
      else result.push({ from_ns, to_ns });
    }
    return result;
  }

  function band({ from_ns: from, to_ns: to }, extra = "") {
    const element = el("div", { class: `time-band ${extra}` });
    span(element, from, to);
    return element;
  }

  const range = (a, b) => {
    const [low, high] = a < b ? [a, b] : [b, a];
    return `${pk.format.duration(low)} – ${pk.format.duration(high)}`;
  };

  /** Spreads a band from one time to another. */
  function span(band, a, b) {
    const whole = pk.data.page.duration_ns;
    const [low, high] = a < b ? [a, b] : [b, a];
    // The last of several stretches of time may reach beyond the capture's end.
    const end = Math.min(high, whole);
    band.hidden = end <= low;
    band.style.left = `${(100 * low) / whole}%`;
    band.style.width = `${(100 * (end - low)) / whole}%`;
  }

  function crosshair(time) {
    for (const { line } of areas) {
      line.hidden = time === null;
      if (time !== null) line.style.left = `${(100 * time) / pk.data.page.duration_ns}%`;
    }
  }

  /** Pales what the filter leaves out. */
  function show({ before, after }, { from_ns: from, to_ns: to }) {
    span(before, 0, from ?? 0);
    span(after, to ?? pk.data.page.duration_ns, pk.data.page.duration_ns);
  }

  pk.filter.on((state) => areas.forEach((each) => show(each, state)));

  /** Draws again when the width or the theme changes. */
  function keepDrawn(element, draw) {
    let width = 0;
    const redraw = () => {
      width = Math.floor(element.clientWidth);
      if (width > 0) draw(width);
    };
    new ResizeObserver(() => Math.floor(element.clientWidth) !== width && redraw()).observe(
      element,
    );
    pk.theme.on(redraw);
    redraw();
  }

  pk.timeAxis = { ticks, axis, layout, cover, keepDrawn };
}
