"use strict";
// Lines over the time of the capture, one chart for each group of series, drawn with Plotly.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;
  const HEIGHT = 92;
  const LINES = ["--line-1", "--line-2", "--line-3", "--line-4"];
  const LANE = 9;
  const MAX_LANES = 8;
  const KINDS = [
    ["spike", "Spikes"],
    ["finding", "Findings"],
  ];
  const SEVERITIES = ["high", "medium", "low", "info"];

  /** `data`: {start_ns, bucket_ns, series: [{id, title, unit, values, group}]}. */
  function create(element, data) {
    const groups = Map.groupBy(data.series, ({ group }) => group);
    const stack = el("div", { class: "chart-stack" });
    element.append(stack);
    lanes(stack);
    [...groups.values()].forEach((series, i) =>
      chart(stack, { ...data, series }, { last: i === groups.size - 1 }),
    );
  }

  /**
   * One chart: {start_ns, bucket_ns, series: [{title, unit, values, typical?}], title?, shifts?:
   * [{from_ns, to_ns, label}]}. Returns its figure. `last`: with the labels of the time axis.
   */
  function chart(parent, data, { last }) {
    const { series, title, shifts = [] } = data;
    const legend = el("div", { class: "legend" });
    const plot = el("div", {
      class: "timechart-plot",
      role: "img",
      "aria-label": described(series, title),
    });
    const box = el("div", { class: "timechart" }, plot);
    const head = title ? el(data.heading ?? "h4", { text: pk.format.text(title, 200) }) : null;
    const figure = el("figure", {}, el("div", { class: "chart-title" }, head, legend), box);
    parent.append(figure);
    const cover = pk.timeAxis.cover(box, (time) => tip(data, time), shifts);
    const height = HEIGHT + (last ? 20 : 0);
    let drawn = null;
    const show = (width) => {
      drawn = width;
      legend.replaceChildren(...series.map(legendItem));
      cover.place(width, 6, HEIGHT - 6);
      return draw(plot, data, series, width, height, last);
    };
    pk.timeAxis.keepDrawn(box, show);
    /** Draws other values of the same series. */
    figure.redraw = (values) => {
      series.forEach((one, k) => (one.values = values[k]));
      return drawn === null ? undefined : show(drawn);
    };
    return figure;
  }

  function legendItem({ title, unit, values }, k) {
    const colour = el("span", { class: "swatch", style: { background: `var(${LINES[k]})` } });
    const item = el("span", { class: "legend-item" }, colour);
    item.append(`${pk.format.text(title, 100)}, at most ${said(greatest(values), unit)}`);
    return item;
  }

  function draw(plot, data, series, width, height, last) {
    const traces = series.map(({ values }, k) => ({
      type: "scatter",
      mode: lonely(values) ? "lines+markers" : "lines",
      x: Float64Array.from(values, (_, i) => data.start_ns + (i + 0.5) * data.bucket_ns),
      y: values,
      line: { color: pk.theme.colour(LINES[k]), width: 1.5 },
      marker: { color: pk.theme.colour(LINES[k]), size: 4 },
      connectgaps: false,
      hoverinfo: "skip",
    }));
    series.forEach(({ typical }, k) => {
      if (typical !== null && typical !== undefined) traces.push(level(typical, LINES[k]));
    });
    const top = Math.max(...series.map(({ values }) => greatest(values)), 0);
    const layout = {
      ...pk.timeAxis.layout(width, height, { labels: last }),
      xaxis: pk.timeAxis.axis(width, { labels: last }),
      yaxis: amounts(top, series[0].unit),
    };
    layout.margin.b = last ? 20 : 3;
    return Plotly.react(plot, traces, layout, { staticPlot: true });
  }

  /** A dashed line at a value, over the whole time. */
  const level = (value, colour) => ({
    type: "scatter",
    mode: "lines",
    x: [0, pk.data.page.duration_ns],
    y: [value, value],
    line: { color: pk.theme.colour(colour), width: 1, dash: "dot" },
    hoverinfo: "skip",
  });

  /** An axis from 0 to a round number at or above `top`, with a label at both ends. */
  function amounts(top, unit) {
    const power = top > 0 ? 10 ** Math.floor(Math.log10(top)) : 1;
    const end =
      unit === "bytes"
        ? top
        : ([1, 1.5, 2, 3, 4, 5, 7.5, 10].find((m) => m * power >= top) ?? 10) * power;
    const most = end > 0 ? end : 1;
    const at = unit === "count" && most < 2 ? [0, most] : [0, most / 2, most];
    return {
      range: [0, most * 1.06],
      fixedrange: true,
      tickvals: at,
      ticktext: at.map((value) => pk.format.plotly(said(value, unit))),
      gridcolor: pk.theme.colour("--line"),
      zeroline: false,
      ticklabelstandoff: 6,
    };
  }

  function said(value, unit) {
    if (unit !== "rate") return pk.format.value(value, unit);
    return value === 0 ? "0/s" : pk.format.rate(value);
  }

  function greatest(values) {
    let most = -Infinity;
    for (const value of values) if (value > most) most = value;
    return Number.isFinite(most) ? most : 0;
  }

  /** Whether the series has a value with none beside it, which no line would show. */
  function lonely(values) {
    const known = (i) => i >= 0 && i < values.length && Number.isFinite(values[i]);
    for (let i = 0; i < values.length; i++)
      if (known(i) && !known(i - 1) && !known(i + 1)) return true;
    return false;
  }

  /** Spikes and findings over time, as bars in as few lanes as they need, one group above the other. */
  function lanes(parent) {
    const marks = pk.data.page.marks ?? [];
    if (!marks.length) return;
    const bars = [];
    const names = [];
    let top = 0;
    for (const [kind, title] of KINDS) {
      const mine = marks.filter((mark) => mark.kind === kind);
      if (!mine.length) continue;
      const style = { top: `${top * LANE - 4}px` };
      names.push(el("span", { class: "lane-name", "aria-hidden": "true", text: title, style }));
      top += Math.max(stacked(mine, bars, top), 2);
    }
    const box = el("div", { class: "timechart", role: "img", "aria-label": spoken(marks) });
    box.style.height = `${top * LANE + 6}px`;
    box.append(...names);
    parent.append(el("figure", {}, box));
    const cover = pk.timeAxis.cover(box, (time, event) => {
      const lane = Math.floor((event.clientY - box.getBoundingClientRect().top) / LANE);
      const under = bars.filter((each) => each.lane === lane).map(({ mark }) => mark);
      return [heading(time), marked(under, time)];
    });
    cover.area.prepend(...bars.map(({ element }) => element));
    pk.timeAxis.keepDrawn(box, (width) => cover.place(width, 0, top * LANE));
  }

  /** Puts bars into lanes from `top` on, so that none lies on another; returns how many lanes. */
  function stacked(marks, bars, top) {
    const ends = [];
    for (const mark of [...marks].sort((x, y) => x.from_ns - y.from_ns)) {
      const free = ends.findIndex((end) => end < mark.from_ns);
      const lane = free >= 0 ? free : Math.min(ends.length, MAX_LANES - 1);
      ends[lane] = Math.max(ends[lane] ?? 0, shownEnd(mark));
      bars.push(bar(mark, top + lane));
    }
    return ends.length;
  }

  /** What is too short to be seen is drawn a little longer. */
  const shownEnd = ({ from_ns: from, to_ns: to }) =>
    Math.max(to, from + pk.data.page.duration_ns / 250);

  function bar(mark, lane) {
    const whole = pk.data.page.duration_ns;
    const name = SEVERITIES.includes(mark.severity) ? mark.severity : "info";
    const style = {
      left: `${(100 * mark.from_ns) / whole}%`,
      width: `${(100 * (shownEnd(mark) - mark.from_ns)) / whole}%`,
      top: `${lane * LANE}px`,
      background: `var(--${name})`,
    };
    return { mark, lane, element: el("div", { class: "lane-bar", style }) };
  }

  const spoken = (marks) =>
    `Spikes and findings over time: ${marks.map(({ label }) => pk.format.text(label, 100)).join("; ")}`;

  function tip({ series, start_ns, bucket_ns, shifts = [] }, time) {
    const i = Math.floor((time - start_ns) / bucket_ns);
    const rows = series.map(({ title, unit, values }) => [
      pk.format.text(title, 100),
      said(values[i], unit),
    ]);
    for (const { from_ns: from, to_ns: to, label } of shifts)
      if (from <= time && time < to) rows.push(["left its level", pk.format.text(label, 200)]);
    return [heading(time), rows];
  }

  const heading = (time) => `${pk.format.duration(time)} · ${pk.format.clock(time)}`;

  const marked = (marks, time) =>
    marks
      .filter((mark) => mark.from_ns <= time && time <= shownEnd(mark))
      .map(({ severity, label }) => [severity, pk.format.text(label, 200)]);

  const described = (series, title) =>
    `${title ? pk.format.text(title, 200) : "Over time"}: ${series
      .map(({ title: name, unit, values }) => `${name} at most ${said(greatest(values), unit)}`)
      .join(", ")}`;

  pk.timeline = { create, chart, lanes, heading };
}
