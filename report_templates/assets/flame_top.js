"use strict";
// The functions or spans of a tree by their time, recursion counted once.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;

  class Top {
    /** `onopen(node)` is called with the heaviest node of the function that was chosen. */
    constructor(element, source, onopen) {
      this.element = element;
      const { unit } = source;
      const label = (row) => this.sums.labels[row];
      const node = (row) => this.sums.node[label(row)];
      const self = (row) => this.sums.self[label(row)];
      const total = (row) => this.sums.total[label(row)];
      const share = (of) => (row) => (this.values.whole > 0 ? of(row) / this.values.whole : 0);
      const text = (string) => pk.format.text(this.tree.strings[string] ?? "", 400);
      const module = (row) => text(this.tree.module[node(row)]);
      const kind = (row) => this.tree.categories[this.tree.category[node(row)]];
      const columns = [
        { key: "name", title: "Name", wide: true, value: (row) => text(label(row)) },
        { key: "module", title: "Module", width: "26ch", value: module },
        { key: "kind", title: "Kind", width: "12ch", value: kind },
        { key: "self", title: "Self", unit, width: "13ch", value: self, share: share(self) },
        { key: "self_ratio", title: "Self %", unit: "ratio", value: share(self) },
        { key: "total", title: "Total", unit, width: "13ch", value: total, share: share(total) },
        { key: "total_ratio", title: "Total %", unit: "ratio", value: share(total) },
      ];
      const what = source.file ? "functions" : "spans";
      this.table = pk.table.create(element, {
        label: `Top ${what} by their time`,
        columns: columns.filter(({ key }) => key !== "module" || source.module),
        sort: { key: "self", descending: true },
        search: `Search ${what}`,
        onopen: (row) => onopen(node(row)),
      });
      const note =
        "Total counts recursion once. Choose a row to see what calls it and what it calls.";
      element.append(el("p", { class: "note", text: note }));
    }

    show(tree, values) {
      this.tree = tree;
      this.values = values;
      this.sums = pk.tree.byLabel(tree, values);
      this.table.update(this.sums.labels.length);
    }
  }

  pk.flame.Top = Top;
}
