"use strict";
// A table that the page came with, whose figures follow the filter and come back when it is cleared.
{
  const pk = (window.perfkit ??= {});
  const UNITS = [["_ns", "ns"], ["_bytes", "bytes"], ["_ratio", "ratio"]];

  const unit = (key) => UNITS.find(([suffix]) => key.endsWith(suffix))?.[1] ?? "count";

  function text(key, value) {
    return key.endsWith("_per_s") ? pk.format.rate(value) : pk.format.value(value, unit(key));
  }

  /**
   * `rows` are found by their `data-row`, cells by their `data-key`. A cell for which there is no
   * value shows a dash, so that no figure of another choice is taken for one of this.
   */
  class LiveTable {
    constructor(table) {
      this.cells = [];
      for (const row of table.tBodies[0].rows) {
        for (const cell of row.querySelectorAll("td[data-key]")) {
          this.cells.push({
            cell,
            row: Number(row.dataset.row),
            key: cell.dataset.key,
            text: cell.textContent,
            value: cell.dataset.value,
            share: cell.style.getPropertyValue("--share"),
          });
        }
      }
    }

    /** The figures that the page came with: those of all requests. */
    restore() {
      for (const { cell, text, value, share } of this.cells) this.put(cell, text, value, share);
    }

    /** `columns`: key -> one value a row. */
    show(columns) {
      for (const { cell, row, key } of this.cells) {
        const value = columns[key]?.[row] ?? NaN;
        const share = Math.min(Math.max(Number.isFinite(value) ? value : 0, 0), 1);
        this.put(cell, text(key, value), Number.isFinite(value) ? value : -1, share);
      }
    }

    put(cell, text, value, share) {
      cell.textContent = text;
      cell.dataset.value = value;
      if (cell.classList.contains("bar")) cell.style.setProperty("--share", share);
    }
  }

  /** Quantiles of values that stand for `weights` each: linear between the values, as in Python. */
  function quantiles(values, weights, ratios) {
    if (!values.length) return ratios.map(() => NaN);
    const order = Array.from(values.keys()).sort((a, b) => values[a] - values[b]);
    if (!weights) {
      return ratios.map((ratio) => {
        const at = ratio * (order.length - 1);
        const low = values[order[Math.floor(at)]];
        return low + (at % 1) * (values[order[Math.ceil(at)]] - low);
      });
    }
    return weighted(values, weights, order, ratios);
  }

  /** A value of weight w stands for w equal values: the quantile of that longer list. */
  function weighted(values, weights, order, ratios) {
    const ends = [];
    let sum = 0;
    for (const i of order) ends.push((sum += weights[i]));
    const at = (position) => {
      let low = 0;
      let high = ends.length - 1;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (ends[middle] > position) high = middle;
        else low = middle + 1;
      }
      return values[order[low]];
    };
    return ratios.map((ratio) => {
      const position = ratio * (sum - 1);
      const low = at(Math.floor(position));
      return low + (position - Math.floor(position)) * (at(Math.floor(position) + 1) - low);
    });
  }

  pk.liveTable = { create: (table) => new LiveTable(table), quantiles };
}
