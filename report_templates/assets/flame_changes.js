"use strict";
// The functions or spans of two populations with their own share on each side, recursion counted once.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;

  class Changes {
    constructor() {
      this.element = el("div", { class: "flame-top" });
      const share = (side, name) => (row) => {
        const { sums, whole } = this.sides[side];
        return whole > 0 ? sums[name][this.keys[row]] / whole : 0;
      };
      const change = (row) => share(0, "self")(row) - share(1, "self")(row);
      const text = (row) => pk.format.text(this.tree.strings[this.tree.label[this.nodes[row]]] ?? "", 400);
      const points = (ratio) => `${ratio < 0 ? "−" : "+"}${pk.format.percent(Math.abs(ratio))}`;
      this.table = pk.table.create(this.element, {
        label: "What differs most, by own share",
        search: "Search",
        sort: { key: "change", descending: true },
        columns: [
          { key: "name", title: "Name", wide: true, value: text },
          { key: "verdict", title: "Verdict", width: "14ch", value: (row) => this.verdict(row, change(row)) },
          { key: "change", title: "Change of self", width: "15ch", value: (row) => Math.abs(change(row)), text: (row) => points(change(row)), unit: "ratio" },
          { key: "first", title: "Self, first", unit: "ratio", value: share(0, "self"), share: share(0, "self") },
          { key: "second", title: "Self, second", unit: "ratio", value: share(1, "self"), share: share(1, "self") },
          { key: "first_total", title: "Total, first", unit: "ratio", value: share(0, "total") },
          { key: "second_total", title: "Total, second", unit: "ratio", value: share(1, "total") },
        ],
      });
      this.element.append(
        el("p", {
          class: "note",
          text: "Shares of the whole of each side. A change within three standard errors, found from blocks of time, is called noise.",
        }),
      );
    }

    verdict(row, change) {
      const key = this.keys[row];
      const there = this.sides.map(({ sums }) => sums.total[key] > 0);
      if (!there[1]) return "only in first";
      if (!there[0]) return "only in second";
      if (!this.errors[0] || !this.errors[1]) return "not tested";
      const band = 3 * Math.hypot(this.errors[0][key], this.errors[1][key]);
      if (Math.abs(change) <= Math.max(band, 0.001)) return "within noise";
      return change > 0 ? "more in first" : "less in first";
    }

    show(tree, values, { baseline }) {
      this.tree = tree;
      const sums = (of) => pk.tree.sums(tree, of);
      this.sides = [values, baseline].map((of) => ({ sums: sums(of), whole: of.whole }));
      this.errors = [values, baseline].map((of) => errorsOf(tree, of));
      this.keys = [...new Set(this.sides.flatMap((side) => side.sums.keys))];
      const [one, other] = this.sides.map((side) => side.sums.node);
      this.nodes = this.keys.map((key) => (one[key] >= 0 ? one[key] : other[key]));
      this.table.update(this.keys.length);
    }
  }

  /** Standard errors of the own share of each function. */
  function errorsOf(tree, values) {
    if (!values.blocks) return null;
    const bySame = ({ self }) => {
      const sums = new Float64Array(tree.sames);
      for (let i = 0; i < tree.n; i++) sums[tree.same[i]] += self[i];
      return sums;
    };
    const wholes = values.blocks.map(({ whole }) => whole);
    return pk.flame.standardErrors(bySame(values), values.whole, values.blocks.map(bySame), wholes);
  }

  pk.flame.Changes = Changes;
}
