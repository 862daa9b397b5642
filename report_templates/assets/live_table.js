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

  /**
   * Quantiles as perfkit/analysis/percentiles.py has them: a value of weight w counts as w equal
   * observations, and between two observations the line decides. Without weights each counts once.
   */
  function quantiles(values, weights, ratios) {
    const n = values.length;
    if (!n) return ratios.map(() => NaN);
    const order = Array.from(values.keys()).sort((a, b) => values[a] - values[b]);
    const weight = (k) => (weights ? Math.max(weights[order[k]], 1) : 1);
    const since = new Float64Array(n + 1);
    for (let k = 0; k < n; k++) since[k + 1] = since[k] + weight(k);
    return ratios.map((ratio) => {
      const place = ratio * (since[n] - 1);
      const lower = lastAt(since, n, place);
      const low = values[order[lower]];
      const high = values[order[Math.min(lower + 1, n - 1)]];
      const beyond = Math.min(Math.max(place - (since[lower + 1] - 1), 0), 1);
      return low + (high - low) * beyond;
    });
  }

  /** The last of `n` rising numbers that is not above `place`. */
  function lastAt(since, n, place) {
    let low = 0;
    let high = n - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (since[middle] <= place) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  pk.liveTable = { create: (table) => new LiveTable(table), quantiles };
}
