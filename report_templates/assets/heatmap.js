"use strict";
// A grid over time, drawn with Plotly's heatmap: one row a core, a process, a pool or a class.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;
  // From little to much, by lightness alone, so that it reads without seeing colours.
  const SCALES = {
    light: ["#e4ebf1", "#cadcec", "#a3c6e0", "#6ea6cf", "#3c83b8", "#1b5f96", "#0a3d6b"],
    dark: ["#20262b", "#233a4e", "#285273", "#326f9b", "#4e92c2", "#82b8dc", "#cfe6f5"],
  };

  /**
   * `panel`: {title, unit, of? (what is counted), rows, bucket_ns, start_ns, columns, values
   * (row-major), max?, note?, log?}. Returns {update(values)}.
   */
  function create(element, panel) {
    const scale = el("span", { class: "scale" });
    const plot = el("div", { role: "img", "aria-label": `Heatmap: ${panel.title}` });
    const box = el("div", { class: "timechart is-map" }, plot);
    const title = el(
      "div",
      { class: "chart-title" },
      el("h3", { text: pk.format.text(panel.title, 200) }),
      scale,
    );
    const note = panel.note
      ? el("p", { class: "note", text: pk.format.text(panel.note, 300) })
      : null;
    element.append(el("figure", {}, title, box, note));
    let values = panel.values;
    let width = 0;
    const rowHeight = panel.rows.length > 24 ? 12 : panel.rows.length > 4 ? 18 : 26;
    const area = panel.rows.length * rowHeight;
    const cover = pk.timeAxis.cover(box, (time, event) => tip(panel, values, time, event));
    const most = () => (panel.max ?? greatest(values)) || 1;

    function draw(newWidth) {
      width = newWidth;
      const steps = SCALES[pk.theme.current()];
      scale.replaceChildren(...key(panel, most(), steps));
      cover.place(width, 6, area);
      const layout = {
        ...pk.timeAxis.layout(width, area + 26),
        xaxis: { ...pk.timeAxis.axis(width), showgrid: false },
        yaxis: names(panel.rows, width, rowHeight),
      };
      return Plotly.react(plot, [trace(panel, values, most(), steps)], layout, {
        staticPlot: true,
      });
    }

    pk.timeAxis.keepDrawn(box, draw);
    return {
      update(next) {
        values = next;
        return width ? draw(width) : undefined;
      },
    };
  }

  /** Where a value lies between nothing and all, 0..1. Counts go by their logarithm. */
  const level = (panel, value, most) =>
    panel.log ? Math.log1p(Math.max(value, 0)) / Math.log1p(most) : value / most;

  function trace(panel, values, most, steps) {
    const { columns } = panel;
    const z = panel.rows.map((_, row) =>
      Array.from(values.subarray(row * columns, (row + 1) * columns), (value) =>
        Number.isFinite(value) ? Math.min(Math.max(level(panel, value, most), 0), 1) : null,
      ),
    );
    return {
      type: "heatmap",
      z,
      x0: panel.start_ns + panel.bucket_ns / 2,
      dx: panel.bucket_ns,
      y: panel.rows.map((_, i) => i),
      zmin: 0,
      zmax: 1,
      colorscale: steps.map((colour, i) => [i / (steps.length - 1), colour]),
      showscale: false,
      hoverinfo: "skip",
      hoverongaps: false,
      xgap: columns < 150 ? 1 : 0,
      ygap: 1,
    };
  }

  function names(rows, width, rowHeight) {
    const every = Math.ceil(13 / rowHeight);
    const at = rows.map((_, i) => i).filter((i) => i % every === 0);
    const room = width < 560 ? 7 : 17;
    return {
      range: [rows.length - 0.5, -0.5],
      fixedrange: true,
      tickvals: at,
      ticktext: at.map((i) => pk.format.plotly(rows[i], room)),
      showgrid: false,
      zeroline: false,
      ticks: "",
      ticklabelstandoff: 6,
    };
  }

  function key(panel, most, steps) {
    const cells = steps.map((colour) => el("i", { style: { background: colour } }));
    const text = (value) => pk.format.value(value, panel.unit);
    const greatest = panel.of ? `${text(most)} ${panel.of}` : text(most);
    return [
      text(0),
      el("span", { class: "scale-steps", "aria-hidden": "true" }, ...cells),
      panel.log ? `${greatest}, logarithmic` : greatest,
    ];
  }

  function tip(panel, values, time, event) {
    const column = Math.floor((time - panel.start_ns) / panel.bucket_ns);
    const box = event.currentTarget.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * panel.rows.length);
    if (row < 0 || row >= panel.rows.length) return null;
    const known = column >= 0 && column < panel.columns;
    const value = known ? values[row * panel.columns + column] : NaN;
    const name = pk.format.text(panel.rows[row], 200);
    return [pk.timeline.heading(time), [[name, pk.format.value(value, panel.unit)]]];
  }

  function greatest(values) {
    let most = 0;
    for (const value of values) if (value > most) most = value;
    return most;
  }

  pk.heatmap = { create, trace, key, greatest, SCALES };
}
