"use strict";
// When code ran, to choose a time by: a column is a second (or some), a row the offset within it.
// Cells follow one another in time down a column, so what is chosen is always one stretch of time.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;
  const SECOND = 1e9;
  const ROWS = 50;
  const MOST_COLUMNS = 300;
  const CELL_HEIGHT = 3;
  const STEPS = [1, 2, 5, 10, 30, 60, 300, 600, 3600];
  // From nothing to the most; lightness alone tells them apart.
  const SHADES = {
    light: [
      [238, 241, 244],
      [190, 60, 0],
    ],
    dark: [
      [38, 43, 48],
      [255, 190, 80],
    ],
  };

  /** How time is cut: `columns` of `column_ns`, each of ROWS cells. */
  function grid(duration_ns) {
    const seconds = duration_ns / SECOND;
    const step = STEPS.find((one) => seconds / one <= MOST_COLUMNS) ?? Math.ceil(seconds / MOST_COLUMNS);
    const column_ns = step * SECOND;
    const columns = Math.max(1, Math.ceil(duration_ns / column_ns));
    return { columns, column_ns, cell_ns: column_ns / ROWS, cells: columns * ROWS };
  }

  /** Sampled time, or samples, in each cell; `keeps(i)` says which samples count. */
  function weigh(samples, unit, { cells, cell_ns }, keeps) {
    const sums = new Float64Array(cells);
    const whole = new Float64Array(cells + 1); // Where stretches of cells filled by one sample begin and end.
    for (let i = 0; i < samples.stack.length; i++) {
      const start = samples.start_ns[i];
      if (Number.isNaN(start) || !keeps(i)) continue;
      const first = Math.floor(start / cell_ns);
      if (unit === "samples") {
        if (first >= 0 && first < cells) sums[first] += samples.duration[i];
        continue;
      }
      const from = Math.max(start, 0);
      const to = Math.min(start + samples.duration[i], cells * cell_ns);
      if (!(to > from)) continue;
      const a = Math.floor(from / cell_ns);
      const b = Math.floor(to / cell_ns);
      if (a === b) {
        sums[a] += to - from;
        continue;
      }
      sums[a] += (a + 1) * cell_ns - from;
      if (b < cells) sums[b] += to - b * cell_ns;
      whole[a + 1] += 1;
      whole[b] -= 1;
    }
    let open = 0;
    for (let i = 0; i < cells; i++) {
      open += whole[i];
      sums[i] += open * cell_ns;
    }
    return sums;
  }

  class Subsecond {
    constructor({ samples, tree }, duration_ns) {
      this.samples = samples;
      this.unit = tree.unit;
      this.grid = grid(duration_ns);
      this.cursor = 0;
      this.anchor = null;
      const step = this.grid.column_ns / SECOND;
      this.canvas = el("canvas", {
        class: "subsecond",
        tabindex: 0,
        role: "application",
        "aria-label":
          "When code ran. Arrow keys move, with Shift they extend, Enter chooses the time, Escape all of it.",
      });
      this.status = el("p", { class: "note", "aria-live": "polite" });
      const what = step === 1 ? "one second" : `${pk.format.number(step)} seconds`;
      this.element = el(
        "details",
        { class: "more no-print", open: true },
        el("summary", { text: "When it ran: drag to choose a time" }),
        this.canvas,
        el("p", {
          class: "note",
          text: `A column is ${what}, a row ${pk.format.duration(this.grid.cell_ns)} of it, from the top down; darker (in the dark theme: brighter) is more. A click chooses a column, a drag the time from cell to cell.`,
        }),
        this.status,
      );
      this.listen();
      pk.theme.on(() => this.draw());
      this.element.addEventListener("toggle", () => this.draw());
      new ResizeObserver(() => this.draw()).observe(this.canvas);
    }

    update(keeps) {
      this.sums = weigh(this.samples, this.unit, this.grid, keeps);
      this.most = this.sums.reduce((most, value) => Math.max(most, value), 0);
      this.draw();
    }

    /** First and last cell that are chosen, or being chosen. */
    range() {
      if (this.anchor !== null)
        return [Math.min(this.anchor, this.cursor), Math.max(this.anchor, this.cursor)];
      const { from_ns: from, to_ns: to } = pk.filter.state;
      const { cell_ns, cells } = this.grid;
      if (from === null && to === null) return [0, cells - 1];
      return [Math.floor((from ?? 0) / cell_ns), Math.ceil((to ?? cells * cell_ns) / cell_ns) - 1];
    }

    draw() {
      const { canvas, sums, grid: cut } = this;
      if (!sums || !canvas.clientWidth) return;
      const ratio = devicePixelRatio || 1;
      canvas.width = Math.round(canvas.clientWidth * ratio);
      canvas.height = Math.round(ROWS * CELL_HEIGHT * ratio);
      const pen = canvas.getContext("2d");
      const [low, high] = SHADES[pk.theme.current()];
      const [first, last] = this.range();
      const wide = canvas.width / cut.columns;
      const tall = canvas.height / ROWS;
      for (let i = 0; i < cut.cells; i++) {
        const level = this.most > 0 ? Math.sqrt(sums[i] / this.most) : 0;
        const shade = low.map((value, k) => Math.round(value + (high[k] - value) * level));
        pen.globalAlpha = i >= first && i <= last ? 1 : 0.25;
        pen.fillStyle = `rgb(${shade.join(",")})`;
        const x = Math.floor(i / ROWS) * wide;
        pen.fillRect(x, (i % ROWS) * tall, Math.max(wide - (wide > 3 ? 1 : 0), 1), tall);
      }
      pen.globalAlpha = 1;
      if (document.activeElement === canvas) this.mark(pen, wide, tall);
    }

    mark(pen, wide, tall) {
      pen.strokeStyle = getComputedStyle(this.canvas).color;
      pen.lineWidth = 2;
      pen.strokeRect(Math.floor(this.cursor / ROWS) * wide, (this.cursor % ROWS) * tall, wide, tall);
    }

    // ---- pointer and keyboard ----

    at(event) {
      const box = this.canvas.getBoundingClientRect();
      const within = (value, n) => Math.min(Math.max(Math.floor(value * n), 0), n - 1);
      const column = within((event.clientX - box.left) / box.width, this.grid.columns);
      return column * ROWS + within((event.clientY - box.top) / box.height, ROWS);
    }

    listen() {
      const { canvas } = this;
      canvas.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        canvas.setPointerCapture(event.pointerId);
        this.anchor = this.cursor = this.at(event);
        this.draw();
      });
      canvas.addEventListener("pointermove", (event) => {
        const cell = this.at(event);
        this.hint(cell, event);
        if (this.anchor === null || cell === this.cursor) return;
        this.cursor = cell;
        this.draw();
      });
      canvas.addEventListener("pointerup", () => this.choose());
      canvas.addEventListener("pointercancel", () => ((this.anchor = null), this.draw()));
      canvas.addEventListener("pointerleave", () => pk.dom.hideTip());
      canvas.addEventListener("keydown", (event) => this.key(event));
      for (const name of ["focus", "blur"]) canvas.addEventListener(name, () => this.draw());
    }

    /** Chooses from the anchor to the cursor; a single cell stands for its column. */
    choose() {
      if (this.anchor === null) return;
      let [first, last] = this.range();
      if (first === last) {
        first -= first % ROWS;
        last = first + ROWS - 1;
      }
      this.anchor = null;
      const { cell_ns } = this.grid;
      pk.filter.set({ from_ns: Math.round(first * cell_ns), to_ns: Math.round((last + 1) * cell_ns) });
      this.draw();
    }

    hint(cell, event) {
      pk.dom.showTip(pk.dom.facts(...this.facts(cell)), event.clientX, event.clientY);
    }

    facts(cell) {
      const { cell_ns } = this.grid;
      const from = cell * cell_ns;
      // Two cells side by side differ in the digits that a rounded duration leaves out.
      const at = (ns) => (ns / SECOND).toFixed(2);
      const title = `${at(from)} – ${at(from + cell_ns)} s`;
      return [title, [["Sampled", pk.format.value(this.sums[cell], this.unit)]]];
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const steps = { ArrowLeft: -ROWS, ArrowRight: ROWS, ArrowUp: -1, ArrowDown: 1 };
      if (Object.hasOwn(steps, event.key)) this.move(steps[event.key], event.shiftKey);
      else if (event.key === "Enter") {
        this.anchor ??= this.cursor;
        this.choose();
      } else if (event.key === "Escape") {
        this.anchor = null;
        pk.filter.set({ from_ns: null, to_ns: null });
        this.draw();
      } else return;
      event.preventDefault();
    }

    move(step, extend) {
      this.anchor = extend ? (this.anchor ?? this.cursor) : null;
      this.cursor = Math.min(Math.max(this.cursor + step, 0), this.grid.cells - 1);
      const [title, rows] = this.facts(this.cursor);
      this.status.textContent = `${title}: ${rows[0][1]} sampled`;
      this.draw();
    }
  }

  pk.flame ??= {};
  Object.assign(pk.flame, { Subsecond, subsecond: { grid, weigh, ROWS } });
}
