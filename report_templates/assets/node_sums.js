"use strict";
// Sums over the cells of the request flame graph that pass the filter, by the rows of a table.
{
  const pk = (window.perfkit ??= {});
  const PER_NODE = ["critical_ns", "self_ns", "total_ns", "gap_ns", "count", "errors"];

  /**
   * Marks nodes with no node of their row above them. As in perfkit/analysis/components.py, the total
   * of a row is that of its outermost calls: time inside is not counted again.
   */
  function outermost({ parent }, rowOf) {
    const marks = new Uint8Array(parent.length);
    for (let i = 0; i < parent.length; i++) {
      let above = parent[i];
      while (above >= 0 && rowOf[above] !== rowOf[i]) above = parent[above];
      marks[i] = above < 0 ? 1 : 0;
    }
    return marks;
  }

  /** Sums over the cells whose group passes, by the table row of their node. */
  function sum(flame, rowOf, outer, rows) {
    const passed = pk.filter.mask(flame.groups);
    const { cells, groups } = flame;
    const sums = Object.fromEntries(PER_NODE.map((key) => [key, new Float64Array(rows)]));
    let requestTime = 0;
    for (let i = 0; i < passed.length; i++) {
      if (passed[i]) requestTime += groups.duration_ns[i] * (groups.weight ? groups.weight[i] : 1);
    }
    for (let i = 0; i < cells.node.length; i++) {
      const row = rowOf[cells.node[i]];
      if (row < 0 || !passed[cells.group[i]]) continue;
      for (const key of PER_NODE) {
        if (key !== "total_ns" || outer[cells.node[i]]) sums[key][row] += cells[key][i];
      }
    }
    return {
      ...sums,
      critical_ratio: sums.critical_ns.map((value) => (requestTime > 0 ? value / requestTime : NaN)),
      error_ratio: sums.errors.map((value, row) => (sums.count[row] > 0 ? value / sums.count[row] : NaN)),
    };
  }

  pk.nodeSums = { outermost, sum };
}
