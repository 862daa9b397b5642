"use strict";
// A flame graph with all that belongs to it: tools, breadcrumbs, search, top table, sandwich.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;

  const KEYS = [
    [["↑", "↓", "←", "→"], "move between frames"],
    [["Enter"], "zoom in, or open “n more”"],
    [["Backspace"], "back"],
    [["Escape"], "end the search, then show all"],
    [["/"], "search"],
  ];

  /**
   * `options`: {name: key in the URL fragment, whole: what all of it is called, library: categories
   * that "hide library" hides, order: "time" where it is fixed, note: a remark below the graph,
   * titles: what the two sides of a difference are called, tabs(view): more tabs, as for pk.dom.tabs}.
   */
  class View {
    constructor(element, columns, options) {
      this.options = { name: "", whole: "all", library: [], note: "", titles: ["now", "before"], ...options };
      this.source = pk.tree.create(columns);
      this.shapes = new Map();
      this.reshape({ lines: false, recursion: false, hidden: [] });
      this.query = "";
      this.element = element;
      this.build();
    }

    build() {
      const { options, source } = this;
      this.path = el("div", {
        role: "group",
        class: "flame-path",
        "aria-label": `Zoomed to, in ${options.whole}`,
      });
      this.found = el("span", { class: "muted", "aria-live": "polite" });
      this.input = el("input", {
        class: "input",
        type: "search",
        placeholder: "Search frames",
        "aria-label": "Search frames; /pattern/ for a regular expression",
        title: "Part of a name, or /pattern/",
      });
      let waiting = 0;
      this.input.addEventListener("input", () => {
        clearTimeout(waiting);
        waiting = setTimeout(() => this.search(this.input.value), 120);
      });
      this.input.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== "Escape") return;
        clearTimeout(waiting);
        if (event.key === "Escape") this.input.value = "";
        this.search(this.input.value);
        this.stage.element.focus({ preventScroll: true });
      });
      const graph = el("div", { class: "flame-graph" });
      this.tools = this.toolbar();
      graph.append(this.tools, this.path);
      this.stage = new pk.flame.Stage(graph, {
        whole: options.whole,
        order: options.order ?? "heavy",
        tall: true,
        onview: (view) => this.viewed(view),
        onsearch: () => this.input.focus(),
        onescape: () => this.endSearch(),
        onselect: (node) => (this.chosen = node),
      });
      this.legend = el("div", { class: "legend" });
      this.note = el("p", { class: "note" });
      graph.append(this.legend, this.note, help());
      const sandwich = (node, shape) => {
        this.chosen = this.node(shape.map ? shape.from[node] : node);
        this.tabs.show(2);
      };
      const find = (text) => (this.tabs.show(0), this.search(text));
      this.top = new pk.flame.Top(el("div", { class: "flame-top" }), source, sandwich, find);
      this.sandwich = new pk.flame.Sandwich(el("div", { class: "flame-sandwich" }), options);
      this.more = options.tabs?.(this) ?? [];
      this.tabs = pk.dom.tabs("Views of the flame graph", [
        ["Flame graph", graph, () => this.stage.draw()],
        [source.file ? "Top functions" : "Top spans", this.top.element, () => this.showTop()],
        ["Callers and callees", this.sandwich.element, () => this.showSandwich(this.chosen)],
        ...this.more,
      ]);
      const panels = this.more.map(([, panel]) => panel);
      this.element.replaceChildren(
        this.tabs,
        graph,
        this.top.element,
        this.sandwich.element,
        ...panels,
      );
      pk.theme.on(() => this.redraw());
      addEventListener("beforeprint", () => this.stage.draw());
    }

    toolbar() {
      const { options, source } = this;
      const colours = [["category", "Colour by kind"]];
      if (source.module) colours.push(["module", "Colour by module"]);
      this.back = pk.dom.button("Back", () => this.stage.back(), { disabled: true });
      this.reset = pk.dom.button("Show all", () => this.stage.reset(), { disabled: true });
      this.colours = pk.dom.select("Colour", colours, "category", (colour) => this.paint(colour));
      const direction = pk.dom.choice(
        "Direction",
        [
          ["icicle", "Icicle"],
          ["flame", "Flame"],
        ],
        "icicle",
        (orientation) => this.stage.set({ orientation }),
      );
      const order = pk.dom.choice(
        "Order of siblings",
        [
          ["heavy", "Heaviest first"],
          ["name", "By name"],
        ],
        "heavy",
        (value) => this.stage.set({ order: value }),
      );
      this.width = pk.dom.choice(
        "Width",
        [
          ["both", "Both"],
          ["now", "First"],
          ["before", "Second"],
        ],
        "both",
        (side) => ((this.side = side), this.refresh()),
      );
      this.side = "both";
      this.width.hidden = true;
      const tools = el("div", { class: "toolbar", role: "group", "aria-label": "Flame graph" });
      tools.append(
        this.input,
        this.found,
        this.back,
        this.reset,
        direction,
        ...(options.order ? [] : [order]),
        this.colours,
        this.width,
      );
      if (source.file) tools.append(...this.frameTools());
      tools.append(pk.flame.exports.menu(this));
      return tools;
    }

    /** Which frames there are: by function or line, with or without recursion and libraries. */
    frameTools() {
      const { options, source } = this;
      const by = [
        ["function", "By function"],
        ["line", "By line"],
      ];
      this.boxes = {
        lines: pk.dom.select("Frames", by, "function", (value) => this.frames({ lines: value === "line" })),
        recursion: checkbox((on) => this.frames({ recursion: on })),
        hidden: checkbox((on) => this.hideLibrary(on)),
      };
      const labelled = (box, text) => el("label", { class: "field" }, box, text);
      return [
        ...(source.line ? [this.boxes.lines] : []),
        ...(recursive(source) ? [labelled(this.boxes.recursion, "Merge recursion")] : []),
        ...(options.library.length ? [labelled(this.boxes.hidden, "Hide library frames")] : []),
      ];
    }

    // ---- values ----

    /** Shows other values: columns `total`, `self` and maybe `count`, one element for each node. */
    update(values, baseline = null) {
      this.given = values;
      this.givenBaseline = baseline;
      return this.refresh();
    }

    refresh() {
      this.values = this.measured(this.given);
      this.difference = this.givenBaseline
        ? pk.flame.compare(this.values, this.measured(this.givenBaseline), this.options.titles)
        : null;
      this.offerDifference();
      this.shown = this.valuesOfSide();
      if (this.query) this.match();
      const drawn = this.stage.show(this.tree, this.shown, this.difference);
      if (!this.restored) this.restore();
      this.paintLegend();
      this.remark();
      this.showPath();
      if (!this.top.element.hidden) this.showTop();
      if (!this.sandwich.element.hidden) this.showSandwich(this.chosen);
      for (const [, panel, show] of this.more) if (!panel.hidden) show?.();
      return drawn;
    }

    /** What the widths are: of a difference the mean of both sides, or one of them. */
    valuesOfSide(shape = this.shape, difference = this.difference, values = this.values) {
      if (!difference || this.side === "now") return values;
      if (this.side === "before") return difference.baseline;
      return pk.tree.measure(shape.tree, difference.both);
    }

    /** What is shown, of other frames than those of the graph. */
    valuesOfShape(shape) {
      const values = this.measured(this.given, shape);
      const other = this.givenBaseline && this.measured(this.givenBaseline, shape);
      return this.valuesOfSide(shape, other ? pk.flame.compare(values, other) : null, values);
    }

    measured(given, { map, tree } = this.shape) {
      if (!map) {
        const values = pk.tree.measure(this.source, given);
        values.blocks &&= values.blocks.map((b) => ({ ...b, whole: wholeOf(this.source, b.total) }));
        return values;
      }
      const move = ({ self: before }) => {
        const { self, lost } = pk.derive.moved(map, before, tree.n);
        const total = pk.tree.propagate(tree, self);
        return { self, total, lost, whole: wholeOf(tree, total) + lost };
      };
      const { self, total, lost } = move(given);
      const values = pk.tree.measure(tree, { ...given, total, self, blocks: given.blocks?.map(move) });
      values.whole += lost;
      return values;
    }

    hideLibrary(hide) {
      return this.frames({ hidden: hide ? this.options.library : [] });
    }

    /** Shows other frames, zoomed to what was zoomed to. */
    frames(wanted) {
      const { node } = this.stage.view;
      const before = node < 0 ? -1 : this.origin(node);
      this.reshape({ ...this.wanted, ...wanted });
      this.chosen = undefined;
      const words = Object.keys(this.wanted).filter((key) => [this.wanted[key]].flat()[0]);
      pk.filter.setView(this.key("frames"), words.join("-") || null);
      const drawn = this.refresh();
      const again = before < 0 ? -1 : this.node(before);
      return again < 0 ? drawn : this.zoom(again);
    }

    reshape(wanted) {
      this.wanted = wanted;
      this.shape = this.shapeOf(wanted);
      this.tree = this.shape.tree;
    }

    shapeOf(wanted) {
      // Of spans a frame is what it is: their times do not add up from below.
      if (!this.source.file) return { tree: this.source, map: null };
      const name = JSON.stringify(wanted);
      if (!this.shapes.has(name)) this.shapes.set(name, pk.derive.shaped(this.source, wanted));
      return this.shapes.get(name);
    }

    /** A node of the source for one that is shown, and the other way round: links name the former. */
    origin(node) {
      return this.shape.map ? this.shape.from[node] : node;
    }

    node(origin) {
      return this.shape.map ? this.shape.map[origin] : origin;
    }

    offerDifference() {
      const offered = this.colours.querySelector("[value=difference]");
      if (this.difference && !offered) {
        this.colours.append(el("option", { value: "difference", text: "Colour by difference" }));
        this.colours.value = "difference";
        this.stage.options.colour = "difference";
      }
      this.width.hidden = !this.difference;
    }

    // ---- search ----

    search(query) {
      this.query = query.trim();
      this.input.value = query;
      pk.filter.setView(this.key("q"), this.query || null);
      this.match();
      return this.stage.draw();
    }

    match() {
      const result = this.query ? pk.tree.search(this.tree, this.shown, this.query) : null;
      this.stage.hits = result?.nodes ?? null;
      this.matched = result;
      if (!this.query) this.found.textContent = "";
      else if (!result) this.found.textContent = "not a pattern";
      else
        this.found.textContent = `${pk.format.plural(result.count, "frame")}, ${pk.format.percent(result.ratio)}`;
    }

    endSearch() {
      if (!this.query) return false;
      this.search("");
      return true;
    }

    // ---- where it is zoomed to ----

    zoom(node) {
      return this.stage.zoom({ node, skip: 0 });
    }

    select(node) {
      this.tabs.show(0);
      return this.zoom(node);
    }

    viewed(view) {
      const plain = view.skip === 0 && view.node >= 0;
      pk.filter.setView(this.key(), plain ? this.origin(view.node) : null);
      this.showPath();
      this.remark();
    }

    key(part) {
      const { name } = this.options;
      return part ? `${name}.${part}` : name;
    }

    /** Back to where a link points. */
    restore() {
      this.restored = true;
      this.restoreFrames(pk.filter.view(this.key("frames"))?.split("-") ?? []);
      const query = pk.filter.view(this.key("q"));
      if (query) this.search(query);
      const node = Number(pk.filter.view(this.key()) ?? NaN);
      if (!Number.isInteger(node) || node < 0 || node >= this.source.n) return;
      const shown = this.node(node);
      if (shown >= 0) this.zoom(shown);
    }

    restoreFrames(words) {
      if (!words.length || !this.boxes) return;
      const on = (word) => words.includes(word);
      this.boxes.lines.value = on("lines") ? "line" : "function";
      this.boxes.recursion.checked = on("recursion");
      this.boxes.hidden.checked = on("hidden");
      this.reshape({
        lines: on("lines"),
        recursion: on("recursion"),
        hidden: on("hidden") ? this.options.library : [],
      });
      this.refresh();
    }

    showPath() {
      const { view, history } = this.stage;
      this.back.disabled = history.length === 0;
      this.reset.disabled = view.node < 0 && view.skip === 0;
      const nodes = view.node < 0 ? [] : pk.tree.path(this.tree, view.node);
      const crumbs = [-1, ...nodes].map((node) => {
        const text = pk.format.text(this.stage.nameOf(node), 60);
        const current = node === view.node && view.skip === 0;
        return el("button", {
          type: "button",
          class: "crumb",
          text,
          "aria-current": current ? "true" : null,
          on: { click: () => this.zoom(node) },
        });
      });
      if (view.skip) {
        const text = `from number ${pk.format.number(view.skip + 1)} on`;
        crumbs.push(el("span", { class: "crumb", text }));
      }
      this.path.replaceChildren(...crumbs);
      // Later: asking for the width now would lay the page out before the bars are drawn.
      requestAnimationFrame(() => (this.path.scrollLeft = this.path.scrollWidth));
    }

    // ---- looks ----

    paint(colour) {
      this.stage.set({ colour });
      this.paintLegend();
    }

    redraw() {
      this.paintLegend();
      this.sandwich.draw();
      return this.stage.draw();
    }

    paintLegend() {
      const shades = pk.flame.hues();
      const colour = this.stage.options.colour;
      const entries = [];
      if (colour === "category") {
        const used = new Set(this.tree.category);
        for (const category of used) {
          const name = this.tree.categories[category];
          entries.push([shades[pk.flame.categoryHue(name)], name]);
        }
      } else if (colour === "difference") {
        const scale = pk.flame.differences();
        const [first, second] = this.options.titles;
        entries.push(
          [scale.at(-1), `larger share in ${first} than in ${second}`],
          [
            scale[3],
            this.difference?.known ? "within noise" : "differs by less than 0.1 % of all",
          ],
          [scale[0], "smaller share"],
        );
      }
      this.legend.replaceChildren(...entries.map(([fill, text]) => swatch(fill, text)));
    }

    remark() {
      const { bars } = this.stage;
      if (!bars) return;
      let present = 0;
      for (const total of this.shown.total) if (total > 0) present++;
      const drawn =
        bars.kind.filter((kind) => kind === pk.flame.NODE).length -
        (this.stage.view.node < 0 ? 1 : 0);
      const parts = [
        `${pk.format.plural(present, "frame")}, ${pk.format.number(Math.max(drawn, 0))} drawn.`,
      ];
      if (bars.kind.includes(pk.flame.MORE)) {
        parts.push("Frames too thin to see are in the bars “n more”: click one to open it.");
      }
      if (this.options.note) parts.push(this.options.note);
      this.note.textContent = parts.join(" ");
    }

    showTop() {
      const lined = () => {
        const shape = this.shapeOf({ ...this.wanted, lines: true });
        return [shape, this.valuesOfShape(shape)];
      };
      this.top.show(this.shape, this.shown, lined);
    }

    showSandwich(node) {
      let chosen = node ?? -1;
      if (chosen < 0) chosen = heaviestSelf(this.shown);
      this.sandwich.show(this.tree, this.shown, chosen);
    }
  }

  /** Whether any function is called again below itself. */
  const recursive = (tree) => tree.outermost.includes(0);

  const checkbox = (act) =>
    el("input", { type: "checkbox", on: { change: (event) => act(event.target.checked) } });

  /** The sum of the roots. */
  function wholeOf(tree, total) {
    let whole = 0;
    for (const root of pk.tree.children(tree, -1)) whole += total[root];
    return whole;
  }

  function heaviestSelf(values) {
    let best = -1;
    for (let i = 0; i < values.self.length; i++) {
      if (values.self[i] > 0 && (best < 0 || values.self[i] > values.self[best])) best = i;
    }
    return best;
  }

  const swatch = (fill, text) =>
    el(
      "span",
      { class: "legend-item" },
      el("span", { class: "swatch", style: { background: fill } }),
      text,
    );

  function help() {
    const list = el("dl", { class: "pairs" });
    for (const [keys, text] of KEYS) {
      const dt = el("dt", {}, ...keys.flatMap((key) => [el("kbd", { text: key }), " "]));
      list.append(dt, el("dd", { text }));
    }
    return el("details", { class: "more no-print" }, el("summary", { text: "Keyboard" }), list);
  }

  const views = {};

  /** Builds a view; `pk.flame.views[name]` is where to find it again. */
  function create(element, columns, options) {
    const view = new View(element, columns, options);
    views[view.options.name] = view;
    return view;
  }

  Object.assign(pk.flame, { create, views });
}
