"use strict";
// One drawn flame graph and what pointer and keyboard do to it. Plotly draws; which bar lies under
// the pointer is known from the layout.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;

  /**
   * `options`: {whole: what node -1 is called, base: the outermost node to show (-1), orientation,
   * order, colour, tall, onview(view), onselect(node), onsearch(), onescape()}.
   */
  class Stage {
    constructor(element, options) {
      this.options = {
        whole: "all",
        base: -1,
        orientation: "icicle",
        order: "heavy",
        colour: "category",
        ...options,
      };
      this.home = { node: this.options.base, skip: 0 };
      this.view = this.selected = this.home;
      this.history = [];
      this.hits = null;
      this.plot = el("div", { class: "flame-plot", "aria-hidden": "true" });
      this.hoverBox = el("div", { class: "flame-box", hidden: true });
      this.selectedBox = el("div", { class: "flame-box is-selected", hidden: true });
      this.canvas = el(
        "div",
        { class: "flame-canvas" },
        this.plot,
        this.hoverBox,
        this.selectedBox,
      );
      this.status = el("div", { class: "flame-status", "aria-live": "polite" });
      this.uncut = el("p", { class: "note print-only" });
      this.element = el(
        "div",
        {
          class: options.tall ? "flame-stage is-tall" : "flame-stage",
          tabindex: 0,
          role: "application",
          "aria-roledescription": "flame graph",
          "aria-label": `Flame graph of ${this.options.whole}. Arrow keys move between frames, Enter zooms.`,
        },
        this.canvas,
      );
      element.append(this.element, this.uncut, this.status);
      this.listen();
    }

    /** Shows a tree with its values (see pk.tree.measure). Another tree starts from the whole. */
    show(tree, values, difference = null) {
      if (tree !== this.tree) {
        this.view = this.selected = this.home;
        this.history = [];
      }
      this.tree = tree;
      this.values = values;
      this.difference = difference;
      return this.draw();
    }

    set(options) {
      Object.assign(this.options, options);
      return this.draw();
    }

    /** Lays out and draws; a second call while one is waiting for its turn is the same one. */
    draw() {
      // In a tab that is not shown there is no width to draw for; showing it draws.
      if (!this.tree || !this.element.clientWidth) return Promise.resolve();
      this.width = Math.max(Math.floor(this.element.clientWidth), 120);
      this.bars = pk.flame.layout(this.tree, this.values, this.view, {
        width: this.width,
        order: this.options.order,
        base: this.options.base,
      });
      const cut = pk.theme.printing() ? pk.flame.cutForPaper(this.bars, this.width) : 0;
      this.uncut.textContent = cut
        ? `${pk.format.plural(cut, "deeper row")}, narrow or beyond this sheet: only in the file.`
        : "";
      const look = {
        name: (i) => this.name(i),
        paint: pk.flame.painter(this.tree, this.options.colour, this.difference),
        hits: this.hits,
        orientation: this.options.orientation,
      };
      this.canvas.style.height = `${this.bars.rows * pk.flame.ROW}px`;
      this.hoverBox.hidden = true;
      this.placeSelected();
      return pk.flame.draw(this.plot, this.bars, look, this.width).then(() => {
        if (this.options.orientation === "flame")
          this.element.scrollTop = this.element.scrollHeight;
      });
    }

    // ---- where it is zoomed to ----

    zoom(view, { remember = true } = {}) {
      if (view.node === this.view.node && view.skip === this.view.skip) return Promise.resolve();
      if (remember) this.history.push(this.view);
      this.view = view;
      this.selected = view;
      if (this.options.orientation === "icicle") this.element.scrollTop = 0;
      const drawn = this.draw();
      this.options.onview?.(view);
      this.say();
      return drawn;
    }

    back() {
      const view = this.history.pop();
      return view ? this.zoom(view, { remember: false }) : Promise.resolve();
    }

    reset() {
      return this.zoom(this.home);
    }

    /** What a click on a bar does: a frame fills the width, "n more" opens. */
    open(index) {
      const { kind, node, skip } = this.bars;
      const more = kind[index] === pk.flame.MORE;
      if (!more) this.options.onselect?.(node[index]);
      return this.zoom({ node: node[index], skip: more ? skip[index] : 0 });
    }

    // ---- words ----

    name(i) {
      const { bars } = this;
      if (bars.kind[i] === pk.flame.MORE) return `${pk.format.number(bars.count[i])} more`;
      return this.nameOf(bars.node[i]);
    }

    nameOf(node) {
      return node < 0 ? this.options.whole : pk.tree.name(this.tree, node);
    }

    /** [name, value] rows about a bar. */
    facts(i) {
      const { bars, values, tree } = this;
      const node = bars.node[i];
      if (bars.kind[i] === pk.flame.MORE) return this.factsOfMore(i);
      if (this.difference) return this.factsOfDifference(node);
      const amount = (value) => pk.format.value(value, tree.unit);
      const total = pk.flame.total(values, node);
      const rows = [
        ["Total", `${amount(total)}, ${pk.format.percent(total / values.whole)} of all`],
      ];
      const zoomed = pk.flame.total(values, this.view.node);
      if (this.view.node >= 0 && bars.kind[i] === pk.flame.NODE && node !== this.view.node) {
        rows.push(["In view", pk.format.percent(total / zoomed)]);
      }
      if (node < 0) return rows;
      rows.push([
        "Self",
        `${amount(values.self[node])}, ${pk.format.percent(values.self[node] / total)} of it`,
      ]);
      if (values.count) rows.push(["Count", pk.format.number(values.count[node])]);
      rows.push(...this.factsOfPlace(node));
      if (values.drawn[node] < 0.98) {
        rows.push(["Width", "drawn narrower: ran beside its siblings, or outlived its parent"]);
      }
      return rows;
    }

    factsOfPlace(node) {
      const { tree } = this;
      const rows = [["Kind", tree.categories[tree.category[node]]]];
      if (tree.file && tree.file[node] >= 0) rows.push(["File", place(tree, node)]);
      else if (tree.module && tree.strings[tree.module[node]]) {
        rows.push(["Module", pk.format.text(tree.strings[tree.module[node]], 200)]);
      }
      return rows;
    }

    factsOfDifference(node) {
      if (node < 0) return [["Width", "shares of the whole of each side"]];
      return [...this.difference.facts(node, this.tree.unit), ...this.factsOfPlace(node)];
    }

    factsOfMore(i) {
      const { bars, values } = this;
      let sum = 0;
      const children = pk.tree.children(this.tree, bars.node[i]).filter((c) => values.total[c] > 0);
      children.sort((a, b) => values.total[b] - values.total[a] || a - b);
      for (const child of children.subarray(bars.skip[i])) sum += values.total[child];
      return [
        [
          "Total",
          `${pk.format.value(sum, this.tree.unit)}, ${pk.format.percent(sum / values.whole)} of all`,
        ],
        ["Frames", `${pk.format.number(bars.count[i])}, too thin to draw here; click to open`],
        ["Under", pk.format.text(this.nameOf(bars.node[i]), 200)],
      ];
    }

    say() {
      const i = this.indexOfSelected();
      if (i < 0) return;
      const parts = this.facts(i).map(([key, value]) => `${key.toLowerCase()} ${value}`);
      this.status.replaceChildren(
        el("strong", { text: pk.format.text(this.name(i), 300) }),
        el("span", { text: ` ${parts.join(" · ")}` }),
      );
    }

    // ---- pointer ----

    listen() {
      const { canvas } = this;
      canvas.addEventListener("pointermove", (event) => this.hover(event));
      canvas.addEventListener("pointerleave", () => this.unhover());
      canvas.addEventListener("click", (event) => {
        const i = this.under(event);
        this.unhover();
        if (i >= 0) this.open(i);
      });
      this.element.addEventListener("keydown", (event) => this.key(event));
      this.element.addEventListener("focus", () => (this.placeSelected(), this.say()));
      new ResizeObserver(() => {
        // Not drawn while in a hidden tab; a change of height alone changes nothing.
        const width = Math.floor(this.element.clientWidth);
        if (width > 0 && width !== this.width) this.draw();
      }).observe(this.element);
    }

    /** The bar under a pointer event, or -1. */
    under(event) {
      if (!this.bars) return -1;
      const box = this.canvas.getBoundingClientRect();
      const row = Math.floor((event.clientY - box.top) / pk.flame.ROW);
      return pk.flame.at(this.bars, this.flip(row), event.clientX - box.left);
    }

    flip(row) {
      return this.options.orientation === "flame" ? this.bars.rows - 1 - row : row;
    }

    hover(event) {
      const i = this.under(event);
      this.canvas.style.cursor = i >= 0 ? "pointer" : "default";
      if (i < 0) return this.unhover();
      this.frame(this.hoverBox, i);
      const title = pk.format.text(this.name(i), 600);
      pk.dom.showTip(pk.dom.facts(title, this.facts(i)), event.clientX, event.clientY);
      return undefined;
    }

    unhover() {
      this.hoverBox.hidden = true;
      pk.dom.hideTip();
    }

    frame(box, i) {
      const { bars } = this;
      box.hidden = false;
      box.style.left = `${bars.x0[i]}px`;
      box.style.top = `${this.flip(pk.flame.rowOf(bars, i)) * pk.flame.ROW}px`;
      box.style.width = `${Math.max(bars.x1[i] - bars.x0[i] - 1, 2)}px`;
      box.style.height = `${pk.flame.ROW - 1}px`;
    }

    // ---- keyboard ----

    indexOfSelected() {
      const { bars, selected } = this;
      for (let i = 0; i < bars.length; i++) {
        const skip = bars.kind[i] === pk.flame.MORE ? bars.skip[i] : 0;
        if (bars.node[i] === selected.node && skip === selected.skip) return i;
      }
      for (let i = 0; i < bars.length; i++) if (bars.node[i] === this.view.node) return i;
      return -1;
    }

    placeSelected() {
      const i = this.indexOfSelected();
      if (i < 0 || document.activeElement !== this.element) this.selectedBox.hidden = true;
      else this.frame(this.selectedBox, i);
    }

    select(i) {
      const { bars } = this;
      this.selected = {
        node: bars.node[i],
        skip: bars.kind[i] === pk.flame.MORE ? bars.skip[i] : 0,
      };
      this.frame(this.selectedBox, i);
      this.say();
      const top = this.selectedBox.offsetTop;
      if (top < this.element.scrollTop) this.element.scrollTop = top;
      const overflow = top + pk.flame.ROW - this.element.scrollTop - this.element.clientHeight;
      if (overflow > 0) this.element.scrollTop += overflow;
    }

    key(event) {
      if (event.target !== this.element || event.ctrlKey || event.metaKey || event.altKey) return;
      const inward = this.options.orientation === "flame" ? "ArrowUp" : "ArrowDown";
      const outward = this.options.orientation === "flame" ? "ArrowDown" : "ArrowUp";
      const actions = {
        [inward]: () => this.step(+1),
        [outward]: () => this.step(-1),
        ArrowLeft: () => this.sideways(-1),
        ArrowRight: () => this.sideways(+1),
        Enter: () => this.open(this.indexOfSelected()),
        Backspace: () => this.back(),
        Escape: () => this.options.onescape?.() || this.reset(),
        "/": () => this.options.onsearch?.(),
      };
      if (!Object.hasOwn(actions, event.key)) return;
      event.preventDefault();
      actions[event.key]();
    }

    /** To the bar above or below that overlaps the selected one most. */
    step(direction) {
      const { bars } = this;
      const from = this.indexOfSelected();
      const row = pk.flame.rowOf(bars, from) + direction;
      if (row < 0 || row >= bars.rows) return;
      let best = -1;
      let most = 0;
      for (let i = bars.rowStart[row]; i < bars.rowStart[row + 1]; i++) {
        const overlap = Math.min(bars.x1[i], bars.x1[from]) - Math.max(bars.x0[i], bars.x0[from]);
        if (overlap > most) [best, most] = [i, overlap];
      }
      if (best >= 0) this.select(best);
    }

    sideways(direction) {
      const from = this.indexOfSelected();
      const row = pk.flame.rowOf(this.bars, from);
      const to = from + direction;
      if (to >= this.bars.rowStart[row] && to < this.bars.rowStart[row + 1]) this.select(to);
    }
  }

  function place(tree, node) {
    const file = pk.format.text(tree.strings[tree.file[node]], 300);
    return tree.line && tree.line[node] > 0 ? `${file}:${tree.line[node]}` : file;
  }

  pk.flame.Stage = Stage;
}
