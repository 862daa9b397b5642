"use strict";
// Lines over the time of the capture, one chart for each group of series, drawn with Plotly.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;
  const HEIGHT = 92;
  const LINES = ["--line-1", "--line-2", "--line-3", "--line-4"];
  const LANE = 7;
  const MAX_LANES = 8;
  const SEVERITIES = ["high", "medium", "low", "info"];

  /** `data`: {start_ns, bucket_ns, series: [{id, title, unit, values, group}], marks}. */
  function create(element, data) {
    const groups = new Map();
    for (const series of data.series) {
      if (!groups.has(series.group)) groups.set(series.group, []);
      groups.get(series.group).push(series);
    }
    const stack = el("div", { class: "chart-stack" });
    element.append(stack);
    lanes(stack, data.marks);
    [...groups.values()].forEach((series, i) => chart(stack, data, series, i === groups.size - 1));
  }

  function chart(parent, data, series, last) {
    const legend = el("div", { class: "legend" });
    const plot = el("div", {
      class: "timechart-plot",
      role: "img",
      "aria-label": described(series),
    });
    const box = el("div", { class: "timechart" }, plot);
    parent.append(el("figure", {}, el("div", { class: "chart-title" }, legend), box));
    const cover = pk.timeAxis.cover(box, (time) => tip(data, series, time));
    const height = HEIGHT + (last ? 20 : 0);
    pk.timeAxis.keepDrawn(box, (width) => {
      const items = series.map(({ title, unit, values }, k) => {
        const item = el(
          "span",
          { class: "legend-item" },
          el("span", { class: "swatch", style: { background: `var(${LINES[k]})` } }),
        );
        item.append(`${pk.format.text(title, 100)}, at most ${said(greatest(values), unit)}`);
        return item;
      });
      legend.replaceChildren(...items);
      cover.place(width, 6, HEIGHT - 6);
      return draw(plot, data, series, width, height, last);
    });
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
    const top = Math.max(...series.map(({ values }) => greatest(values)), 0);
    const layout = {
      ...pk.timeAxis.layout(width, height),
      xaxis: pk.timeAxis.axis(width, { labels: last }),
      yaxis: amounts(top, series[0].unit),
    };
    layout.margin.b = last ? 20 : 3;
    return Plotly.react(plot, traces, layout, { staticPlot: true });
  }

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

  const said = (value, unit) => pk.format.value(value, unit);

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

  /** Findings and spikes over time, as bars in as few lanes as they need. */
  function lanes(parent, marks) {
    if (!marks?.length) return;
    const ends = [];
    const bars = [...marks]
      .sort((x, y) => x.from_ns - y.from_ns)
      .map((mark) => {
        const free = ends.findIndex((end) => end < mark.from_ns);
        const lane = free >= 0 ? free : Math.min(ends.length, MAX_LANES - 1);
        ends[lane] = Math.max(ends[lane] ?? 0, shownEnd(mark));
        return bar(mark, lane);
      });
    const box = el("div", { class: "timechart", role: "img", "aria-label": spoken(marks) });
    const height = ends.length * LANE;
    box.style.height = `${height + 6}px`;
    parent.append(
      el("figure", {}, el("div", { class: "chart-title" }, el("h3", { text: "Findings" })), box),
    );
    const cover = pk.timeAxis.cover(box, (time, event) => {
      const lane = Math.floor((event.clientY - box.getBoundingClientRect().top) / LANE);
      const under = bars.filter((each) => each.lane === lane).map(({ mark }) => mark);
      return [heading(time), marked(under, time)];
    });
    cover.area.prepend(...bars.map(({ element }) => element));
    pk.timeAxis.keepDrawn(box, (width) => cover.place(width, 0, height));
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
    `Findings over time: ${marks.map(({ label }) => pk.format.text(label, 100)).join("; ")}`;

  function tip(data, series, time) {
    const i = Math.floor((time - data.start_ns) / data.bucket_ns);
    const rows = series.map(({ title, unit, values }) => [
      pk.format.text(title, 100),
      said(values[i], unit),
    ]);
    return [heading(time), rows];
  }

  const heading = (time) => `${pk.format.duration(time)} · ${pk.format.clock(time)}`;

  const marked = (marks, time) =>
    marks
      .filter((mark) => mark.from_ns <= time && time <= shownEnd(mark))
      .map(({ severity, label }) => [severity, pk.format.text(label, 200)]);

  const described = (series) => `Over time: ${series.map(({ title }) => title).join(", ")}`;

  pk.timeline = { create, lanes, heading };
}
