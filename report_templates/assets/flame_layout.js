"use strict";
// Where the bars of a flame graph lie: only those wide enough to be seen, level by level.
//
// The bars are columns: `node`, `x0`, `x1` (pixels), `row`, `kind`, and for MORE the siblings that
// it stands for (`skip` of them come before, `count` are inside). Rows are contiguous and ordered
// from left to right: `rowStart[r] .. rowStart[r + 1]`.
{
  const pk = (window.perfkit ??= {});
  const NODE = 0;
  const MORE = 1;
  const ABOVE = 2;
  const MAX_ABOVE = 3;
  const PAPER_ROWS = 36;
  const PAPER_SHARE = 0.03;

  class Bars {
    constructor() {
      this.node = [];
      this.x0 = [];
      this.x1 = [];
      this.kind = [];
      this.skip = [];
      this.count = [];
      this.rowStart = [0];
    }

    get length() {
      return this.node.length;
    }

    add(node, x0, x1, kind = NODE, skip = 0, count = 1) {
      this.node.push(node);
      this.x0.push(x0);
      this.x1.push(x1);
      this.kind.push(kind);
      this.skip.push(skip);
      this.count.push(count);
    }

    endRow() {
      this.rowStart.push(this.length);
    }

    get rows() {
      return this.rowStart.length - 1;
    }
  }

  /**
   * Lays out what `view` shows: `{node, skip}`, node -1 being the whole. With `skip` > 0 the view
   * shows the children of the node from that rank on, widened to the full width.
   */
  function layout(tree, values, view, { width, least = 3, order = "heavy", base = -1 }) {
    const bars = new Bars();
    const pen = { tree, values, least, order, bars };
    for (const node of above(tree, view.node, base)) {
      bars.add(node, 0, width, ABOVE);
      bars.endRow();
    }
    // What has no time of its own to share out still shows what it called.
    const spreads = view.skip > 0 || !(total(values, view.node) > 0);
    bars.add(view.node, 0, width, spreads ? ABOVE : NODE);
    bars.endRow();
    if (spreads) spread(pen, view, width);
    else below(pen, bars.length - 1);
    for (let first = bars.rowStart.at(-1); first < bars.length; first = bars.rowStart.at(-1)) {
      const last = bars.length;
      bars.endRow();
      for (let i = first; i < last; i++) if (bars.kind[i] === NODE) below(pen, i);
    }
    return bars;
  }

  /**
   * Leaves out the lowest rows of which little is wider than a hair, and what one sheet has no room
   * for. Returns how many rows that were.
   */
  function cutForPaper(bars, width) {
    let rows = Math.min(bars.rows, PAPER_ROWS);
    const filled = (row) => {
      let sum = 0;
      for (let i = bars.rowStart[row]; i < bars.rowStart[row + 1]; i++)
        sum += bars.x1[i] - bars.x0[i];
      return sum;
    };
    while (rows > 1 && filled(rows - 1) < PAPER_SHARE * width) rows--;
    const cut = bars.rows - rows;
    bars.rowStart.length = rows + 1;
    for (const column of ["node", "x0", "x1", "kind", "skip", "count"])
      bars[column].length = bars.rowStart[rows];
    return cut;
  }

  /** The nearest nodes above, down from `base`; the breadcrumbs have all of them. */
  function above(tree, node, base) {
    if (node < 0) return [];
    const path = [-1, ...pk.tree.path(tree, node)];
    return path.slice(path.indexOf(base), -1).slice(-MAX_ABOVE);
  }

  /** Total of a node; node -1 is the whole. */
  const total = (values, node) => (node < 0 ? values.whole : values.total[node]);

  /** Adds the children of the bar at `index`. */
  function below(pen, index) {
    const { tree, values, bars } = pen;
    const node = bars.node[index];
    const own = total(values, node);
    const shrink = node < 0 ? 1 : pk.tree.fit(own, values.self[node], values.below[node]);
    const width = bars.x1[index] - bars.x0[index];
    place(pen, node, present(tree, values, node), {
      left: bars.x0[index],
      width,
      scale: (width / own) * shrink,
    });
  }

  /**
   * Adds the children from rank `skip` on, widened. So many at a time that the largest are wide
   * enough to be seen: opening "n more" again and again comes to the last of them.
   */
  function spread(pen, { node, skip }, width) {
    const { tree, values, least } = pen;
    const ranked = byWeight(values, present(tree, values, node)).subarray(skip);
    const page = ranked.subarray(0, Math.max(1, Math.floor(width / (4 * least))));
    const beyond = ranked.length - page.length;
    let sum = 0;
    for (const child of page) sum += values.total[child];
    const scale = (width * (beyond ? 0.95 : 1)) / sum;
    if (sum > 0) place(pen, node, page, { left: 0, width, scale, skip, beyond });
  }

  const present = (tree, values, node) =>
    pk.tree.children(tree, node).filter((child) => values.total[child] > 0);

  const byWeight = (values, nodes) =>
    nodes.sort((a, b) => values.total[b] - values.total[a] || a - b);

  /**
   * Adds siblings, `scale` pixels for one unit. Those below `least` pixels, and the `beyond` that
   * are not in `nodes`, become one bar that is never thinner than that where there is room.
   */
  function place(pen, parent, nodes, { left, width, scale, skip = 0, beyond = 0 }) {
    const { tree, values, least, order, bars } = pen;
    const wide = nodes.filter((node) => values.total[node] * scale >= least);
    const hidden = nodes.length - wide.length + beyond;
    arrange(tree, values, wide, order);
    let taken = 0;
    for (const node of wide) taken += values.total[node] * scale;
    // Where the hidden ones would be too thin to point at, the others give them a little.
    const lack = hidden ? Math.max(0, taken + Math.min(least, width / 4) - width) : 0;
    const squeezed = taken > 0 ? (scale * (taken - lack)) / taken : scale;
    let x = left;
    for (const node of wide) {
      bars.add(node, x, x + values.total[node] * squeezed);
      x += values.total[node] * squeezed;
    }
    if (!hidden) return;
    let rest = 0;
    for (const node of nodes)
      if (values.total[node] * scale < least) rest += values.total[node] * scale;
    const extent = beyond ? width : Math.max(rest, least);
    bars.add(parent, x, Math.min(x + extent, left + width), MORE, skip + wide.length, hidden);
  }

  function arrange(tree, values, nodes, order) {
    if (order === "time") {
      nodes.sort((a, b) => a - b);
    } else if (order === "name") {
      const { strings, label } = tree;
      const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
      nodes.sort((a, b) => compare(strings[label[a]], strings[label[b]]) || a - b);
    } else {
      nodes.sort((a, b) => values.total[b] - values.total[a] || a - b);
    }
  }

  /** Index of the bar at a pixel of a row, or -1. */
  function at(bars, row, x) {
    if (row < 0 || row >= bars.rows) return -1;
    let low = bars.rowStart[row];
    let high = bars.rowStart[row + 1] - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (bars.x0[middle] <= x) low = middle;
      else high = middle - 1;
    }
    return bars.x0[low] <= x && x < bars.x1[low] ? low : -1;
  }

  /** The row of a bar. */
  function rowOf(bars, index) {
    let row = 0;
    while (bars.rowStart[row + 1] <= index) row++;
    return row;
  }

  pk.flame ??= {};
  Object.assign(pk.flame, { NODE, MORE, ABOVE, layout, cutForPaper, total, at, rowOf });
}
