"use strict";
// The chosen requests by the clock: hour of day by day, minute by hour, or second by minute, whichever
// the length of the capture allows. A click on a cell chooses its time.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;
  const MINUTE = 60e9;
  const HOUR = 60 * MINUTE;
  const DAY = 24 * HOUR;
  // From which length on, one row and one column of it, and how many columns a row has.
  const CLOCKS = [
    { least: 2 * DAY, row: DAY, cell: HOUR, title: "By day and hour of day", name: day },
    { least: 2 * HOUR, row: HOUR, cell: MINUTE, title: "By hour and minute", name: (ms) => `${hour(ms)}:00` },
    { least: 2 * MINUTE, row: MINUTE, cell: 1e9, title: "By minute and second", name: minute },
  ];
  const MAX_ROWS = 62;
  const MEASURES = [
    ["requests", "Requests"],
    ["p95", "p95"],
    ["errors", "Failed"],
  ];

  const iso = (ms) => new Date(ms).toISOString();
  const hour = (ms) => iso(ms).slice(11, 13);
  function minute(ms) {
    return iso(ms).slice(11, 16);
  }
  function day(ms) {
    const name = new Intl.DateTimeFormat("en", { weekday: "short", timeZone: "UTC" }).format(ms);
    return `${name} ${iso(ms).slice(5, 10)}`;
  }

  /** Rows and columns for the capture, or null where it is too short or too long for any. */
  function grid() {
    const { start_unix_ms: start, duration_ns: length } = pk.data.page;
    const clock = CLOCKS.find(({ least }) => length >= least);
    if (!clock || Number.isNaN(new Date(start).getTime())) return null;
    const offset = (start * 1e6) % clock.row;
    const rows = Math.ceil((offset + length) / clock.row);
    if (rows > MAX_ROWS) return null;
    const first = start - offset / 1e6;
    const names = Array.from({ length: rows }, (_, i) => clock.name(first + (i * clock.row) / 1e6));
    return { ...clock, offset, rows: names, columns: clock.row / clock.cell };
  }

  /** The chosen requests of each cell, as [durations, weights, failed weight]. */
  function gathered(requests, { offset, cell, rows, columns }) {
    const passed = pk.filter.mask(requests);
    const cells = Array.from({ length: rows.length * columns }, () => ({ durations: [], weights: [], failed: 0 }));
    for (let i = 0; i < passed.length; i++) {
      const found = passed[i] && cells[Math.floor((requests.start_ns[i] + offset) / cell)];
      if (!found) continue;
      const weight = requests.weight ? requests.weight[i] : 1;
      found.durations.push(requests.duration_ns[i]);
      found.weights.push(weight);
      if (requests.status[i] === 1) found.failed += weight;
    }
    return cells;
  }

  const VALUES = {
    requests: ({ weights }) => weights.reduce((sum, weight) => sum + weight, 0),
    errors: ({ failed }) => failed,
    p95: ({ durations, weights }) => pk.liveTable.quantiles(durations, weights, [0.95])[0],
  };

  function create(parent, requests) {
    const shape = grid();
    if (!shape) return null;
    let measure = "requests";
    const panel = { ...shape, start_ns: -0.5, bucket_ns: 1, unit: "count" };
    const scale = el("span", { class: "scale" });
    const plot = el("div", { role: "img", "aria-label": `${shape.title}: requests, their p95, and failed ones` });
    const cursor = el("div", { class: "flame-box is-selected", hidden: true });
    const spoken = el("span", { class: "visually-hidden", "aria-live": "polite" });
    const area = el(
      "div",
      {
        class: "timechart-area is-calendar",
        tabindex: 0,
        role: "application",
        "aria-roledescription": "heatmap",
        "aria-label": `${shape.title}. Arrow keys move between cells, Enter chooses a cell's time.`,
      },
      cursor,
    );
    const box = el("div", { class: "timechart" }, plot, area);
    const choice = pk.dom.choice("What the cells show", MEASURES, measure, (chosen) => ((measure = chosen), update()));
    const title = el("div", { class: "chart-title" }, el("h3", { text: `${shape.title} (UTC)` }), choice, scale);
    const note = el("p", { class: "note", text: "Click a cell, or move to it with the arrow keys and press Enter, to look at its time alone." });
    parent.append(el("figure", {}, title, box, note, spoken));
    const rowHeight = shape.rows.length > 24 ? 12 : 20;
    let values = [];
    let width = 0;

    function update() {
      const cells = gathered(requests, shape);
      values = Float32Array.from(cells, (cell) => (cell.durations.length ? VALUES[measure](cell) : NaN));
      panel.unit = measure === "p95" ? "ns" : "count";
      return width ? draw(width) : undefined;
    }

    function draw(newWidth) {
      width = newWidth;
      const left = width < 560 ? 58 : 112;
      const height = shape.rows.length * rowHeight;
      const steps = pk.heatmap.SCALES[pk.theme.current()];
      const most = pk.heatmap.greatest(values) || 1;
      scale.replaceChildren(...pk.heatmap.key(panel, most, steps));
      Object.assign(area.style, { left: `${left}px`, top: "6px", width: `${width - left - 14}px`, height: `${height}px` });
      const layout = {
        ...pk.timeAxis.layout(width, height + 26, { labels: false }),
        xaxis: { range: [-0.5, shape.columns - 0.5], ...axis(columnTicks(shape.columns, width)) },
        yaxis: { range: [shape.rows.length - 0.5, -0.5], ...axis(rowTicks(shape.rows, rowHeight)) },
      };
      layout.margin = { ...layout.margin, l: left, r: 14 };
      return Plotly.react(plot, [pk.heatmap.trace(panel, values, most, steps)], layout, { staticPlot: true });
    }

    function cellAt(event) {
      const { left, top, width: wide, height } = area.getBoundingClientRect();
      const column = Math.floor(((event.clientX - left) / wide) * shape.columns);
      const row = Math.floor(((event.clientY - top) / height) * shape.rows.length);
      const inside = column >= 0 && column < shape.columns && row >= 0 && row < shape.rows.length;
      return inside ? row * shape.columns + column : null;
    }

    const start = (cell) => cell * shape.cell - shape.offset;
    const within = (cell) => start(cell) + shape.cell > 0 && start(cell) < pk.data.page.duration_ns;
    const facts = (cell) => [
      pk.timeline.heading(Math.max(start(cell), 0)),
      [[MEASURES.find(([key]) => key === measure)[1], pk.format.value(values[cell], panel.unit)]],
    ];
    area.addEventListener("pointermove", (event) => {
      const cell = cellAt(event);
      if (cell === null || !within(cell)) return pk.dom.hideTip();
      pk.dom.showTip(pk.dom.facts(...facts(cell)), event.clientX, event.clientY);
    });
    area.addEventListener("pointerleave", () => pk.dom.hideTip());
    area.addEventListener("click", (event) => {
      choose(cellAt(event));
    });

    function choose(cell) {
      if (cell === null || !Number.isFinite(values[cell])) return;
      pk.filter.set({ from_ns: Math.max(start(cell), 0), to_ns: start(cell) + shape.cell });
    }

    // The keyboard's cell: the first of the capture, until arrows move it.
    let at = Math.floor(shape.offset / shape.cell);
    function point(cell) {
      at = cell;
      const [row, column] = [Math.floor(cell / shape.columns), cell % shape.columns];
      const share = (part, whole) => `${(100 * part) / whole}%`;
      Object.assign(cursor.style, {
        left: share(column, shape.columns),
        top: share(row, shape.rows.length),
        width: share(1, shape.columns),
        height: share(1, shape.rows.length),
      });
      cursor.hidden = false;
      const [heading, [[name, said]]] = facts(cell);
      spoken.textContent = `${heading}: ${name} ${said}`;
      const box = area.getBoundingClientRect();
      pk.dom.showTip(
        pk.dom.facts(...facts(cell)),
        box.left + ((column + 1) / shape.columns) * box.width,
        box.top + ((row + 1) / shape.rows.length) * box.height,
      );
    }

    const STEPS = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -shape.columns, ArrowDown: shape.columns };
    area.addEventListener("focus", () => area.matches(":focus-visible") && point(at));
    area.addEventListener("blur", () => ((cursor.hidden = true), pk.dom.hideTip()));
    area.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Enter") choose(at);
      else if (!Object.hasOwn(STEPS, event.key)) return;
      else if (within(at + STEPS[event.key])) point(at + STEPS[event.key]);
      event.preventDefault();
    });
    update();
    pk.timeAxis.keepDrawn(box, draw);
    return { update };
  }

  const axis = ([at, text]) => ({
    fixedrange: true,
    tickvals: at,
    ticktext: text,
    showgrid: false,
    zeroline: false,
    ticks: "",
    ticklabelstandoff: 6,
  });

  function columnTicks(columns, width) {
    const every = columns === 24 ? (width < 560 ? 6 : 2) : width < 560 ? 15 : 5;
    const at = Array.from({ length: columns }, (_, i) => i).filter((i) => i % every === 0);
    return [at, at.map((i) => String(i).padStart(2, "0"))];
  }

  function rowTicks(rows, rowHeight) {
    const every = Math.ceil(13 / rowHeight);
    const at = rows.map((_, i) => i).filter((i) => i % every === 0);
    return [at, at.map((i) => pk.format.plotly(rows[i], 17))];
  }

  pk.calendar = { create };
}
