"use strict";
// The functions, lines or modules of a tree by their time, recursion counted once.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;

  const BY = [
    ["function", "By function"],
    ["line", "By line"],
    ["module", "By module"],
  ];
  const NOTES = {
    function: "Total counts recursion once. Choose a row to see what calls it and what it calls.",
    line: "The line that ran, or that the call was at. Choose a row to see its function's callers and callees.",
    module: "Total counts a module once on each path. Choose a row to search for it in the flame graph.",
  };

  class Top {
    /**
     * `onopen(node, shape)` is called with the heaviest node of the function or line that was chosen,
     * `onmodule(name)` with the module. A shape is what pk.derive.shaped makes.
     */
    constructor(element, source, onopen, onmodule) {
      this.element = element;
      this.source = source;
      this.by = "function";
      const { unit } = source;
      const key = (row) => this.sums.keys[row];
      const node = (row) => this.sums.node[key(row)];
      const self = (row) => this.sums.self[key(row)];
      const total = (row) => this.sums.total[key(row)];
      const share = (of) => (row) => (this.values.whole > 0 ? of(row) / this.values.whole : 0);
      const text = (string) => pk.format.text(this.tree.strings[string] ?? "", 400);
      const module = (row) => text(this.tree.module[node(row)]) || "(no module)";
      const kind = (row) => this.tree.categories[this.tree.category[node(row)]];
      this.columns = [
        { key: "name", title: "Name", wide: true, value: (row) => text(this.tree.label[node(row)]) },
        { key: "place", title: "Line", wide: true, value: (row) => place(this.tree, node(row)) },
        { key: "module", title: "Module", width: "26ch", value: module },
        { key: "kind", title: "Kind", width: "12ch", value: kind },
        { key: "self", title: "Self", unit, width: "13ch", value: self, share: share(self) },
        { key: "self_ratio", title: "Self %", unit: "ratio", value: share(self) },
        { key: "total", title: "Total", unit, width: "13ch", value: total, share: share(total) },
        { key: "total_ratio", title: "Total %", unit: "ratio", value: share(total) },
      ];
      this.onopen = (row) => (this.by === "module" ? onmodule(module(row)) : onopen(node(row), this.shape));
      this.box = el("div");
      this.note = el("p", { class: "note" });
      if (source.line) element.append(this.choice());
      element.append(this.box, this.note);
      this.build();
    }

    choice() {
      const known = BY.filter(([by]) => by !== "module" || this.source.module);
      const choice = pk.dom.choice("Rows of the table", known, this.by, (by) => {
        this.by = by;
        this.build();
        this.show(...this.given);
      });
      return el("div", { class: "toolbar" }, choice);
    }

    build() {
      const { source, by } = this;
      const what = source.file ? `${by}s` : "spans";
      const left = {
        function: ["place", ...(source.module ? [] : ["module"])],
        line: ["module"],
        module: ["name", "place", "kind"],
      }[by];
      this.box.replaceChildren();
      this.table = pk.table.create(this.box, {
        label: `Top ${what} by their time`,
        columns: this.columns.filter(({ key }) => !left.includes(key)),
        sort: { key: "self", descending: true },
        search: `Search ${what}`,
        onopen: this.onopen,
      });
      this.note.textContent = NOTES[by];
    }

    /** What rows are: numbers of functions, of their lines, or of modules. */
    key() {
      const { tree } = this;
      if (this.by === "line") return pk.tree.lines(tree);
      if (this.by === "module") return (tree.modules ??= { same: tree.module, sames: tree.strings.length });
      return tree;
    }

    /** `lined()` gives shape and values of the same with lines told apart. */
    show(shape, values, lined) {
      this.given = [shape, values, lined];
      [this.shape, this.values] = this.by === "line" ? lined() : [shape, values];
      this.tree = this.shape.tree;
      this.sums = pk.tree.sums(this.tree, this.values, this.key());
      this.table.update(this.sums.keys.length);
    }
  }

  /** The end of the file's path and the line in it. */
  function place(tree, node) {
    const file = tree.file && tree.file[node] >= 0 ? tree.strings[tree.file[node]] : "";
    const line = tree.line && tree.line[node] > 0 ? `:${tree.line[node]}` : "";
    return pk.format.text(file.split(/[\\/]/).slice(-2).join("/"), 200) + line;
  }

  pk.flame.Top = Top;
}
