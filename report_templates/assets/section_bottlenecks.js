"use strict";
// Bottlenecks: the tables of operations and components from the cells of the request flame graph,
// those of endpoints and tools from the requests, both of what passes the filter.
{
  const pk = (window.perfkit ??= {});
  const BUCKETS = 80;
  const RATIOS = [0.5, 0.95, 0.99];

  /** Figures of the requests that pass, by the row that `rowOf(request)` names. */
  function byRequest(requests, rowOf, rows) {
    const passed = pk.filter.mask(requests);
    const found = Array.from({ length: rows }, () => ({ durations: [], weights: [], errors: 0 }));
    let requestTime = 0;
    for (let i = 0; i < passed.length; i++) {
      if (!passed[i]) continue;
      const weight = requests.weight ? requests.weight[i] : 1;
      requestTime += requests.duration_ns[i] * weight;
      const group = found[rowOf(i)];
      if (!group) continue;
      group.durations.push(requests.duration_ns[i]);
      group.weights.push(weight);
      if (requests.status[i] === 1) group.errors += weight;
    }
    const columns = {};
    found.forEach((group, row) => {
      const figures = summary(group, requestTime, Boolean(requests.weight));
      for (const [key, value] of Object.entries(figures)) (columns[key] ??= [])[row] = value;
    });
    return columns;
  }

  function summary({ durations, weights, errors }, requestTime, weighted) {
    const count = weights.reduce((sum, weight) => sum + weight, 0);
    const total = durations.reduce((sum, duration, i) => sum + duration * weights[i], 0);
    const [p50, p95, p99] = pk.liveTable.quantiles(durations, weighted ? weights : null, RATIOS);
    return {
      requests: count,
      rate_per_s: count / (rangeNs() / 1e9),
      error_ratio: count > 0 ? errors / count : NaN,
      share_ratio: requestTime > 0 ? total / requestTime : NaN,
      mean_ns: count > 0 ? total / count : NaN,
      p50_ns: p50,
      p95_ns: p95,
      p99_ns: p99,
      max_ns: durations.reduce((most, duration) => Math.max(most, duration), count > 0 ? 0 : NaN),
    };
  }

  function rangeNs() {
    const { from_ns: from, to_ns: to } = pk.filter.state;
    if (from === null && to === null) return pk.data.page.covered_ns;
    return Math.max((to ?? pk.data.page.duration_ns) - (from ?? 0), 1);
  }

  /** Which row of the table a request belongs to, by the names in the row. */
  function rowFinder(requests, names, columns) {
    const rows = new Map(names.map((name, row) => [JSON.stringify(name), row]));
    const text = (column, i) => (requests[column][i] < 0 ? null : requests.strings[requests[column][i]]);
    const known = new Map();
    return (i) => {
      const key = columns.map((column) => requests[column][i]).join();
      if (!known.has(key)) known.set(key, rows.get(JSON.stringify(columns.map((c) => text(c, i)))) ?? -1);
      return known.get(key);
    };
  }

  /** Time of each row per request, over time, of the requests that pass; `rows` numbers nodes. */
  function overTime(flame, rows, count) {
    const passed = pk.filter.mask(flame.groups);
    const { cells, groups } = flame;
    const bucket = pk.data.page.duration_ns / BUCKETS;
    const at = (group) => Math.min(Math.max(Math.floor(groups.start_ns[group] / bucket), 0), BUCKETS - 1);
    const weight = (group) => (groups.weight ? groups.weight[group] : 1);
    const requests = new Float64Array(BUCKETS);
    const whole = new Float64Array(BUCKETS);
    for (let group = 0; group < passed.length; group++) {
      if (!passed[group]) continue;
      requests[at(group)] += weight(group);
      whole[at(group)] += weight(group) * groups.duration_ns[group];
    }
    const times = Array.from({ length: count }, () => new Float64Array(BUCKETS));
    for (let i = 0; i < cells.node.length; i++) {
      const row = rows[cells.node[i]];
      if (row >= 0 && row < count && passed[cells.group[i]])
        times[row][at(cells.group[i])] += cells.critical_ns[i];
    }
    const mean = (sums) => sums.map((sum, i) => (requests[i] > 0 ? sum / requests[i] : NaN));
    return { bucket, whole: mean(whole), times: times.map(mean) };
  }

  /** The charts of the cards: what each operation takes of a request, over time. */
  function evidence(root, flame, rows) {
    const slots = [...root.querySelectorAll(".bottleneck")];
    const found = overTime(flame, rows, slots.length);
    const charts = slots.map((card, row) =>
      pk.timeline.chart(card.querySelector("[data-slot=evidence]"), lines(found, row), { last: true }),
    );
    return () => {
      const { whole, times } = overTime(flame, rows, slots.length);
      charts.forEach((chart, row) => chart.redraw([whole, times[row]]));
    };
  }

  function lines({ bucket, whole, times }, row) {
    const series = [
      ["mean request", whole],
      ["of it here", times[row]],
    ];
    return {
      title: "Time per request",
      start_ns: 0,
      bucket_ns: bucket,
      series: series.map(([title, values]) => ({ title, unit: "ns", values })),
    };
  }

  /** The sliders: of the cards, and of components, one of which is shown at a time. */
  function sliders(root, data) {
    if (!data) return () => {};
    const replays = new pk.whatIf.Replays(data);
    const all = [...root.querySelectorAll("[data-what-if]")].map((box) => {
      const owner = box.closest(".bottleneck, [data-whole]");
      const name = owner.querySelector(".card-title, [data-name]").textContent;
      return pk.whatIf.create(box, replays, name);
    });
    return (state) => all.forEach((slider) => slider.update(state));
  }

  pk.section("bottlenecks", (root, data) => {
    const flame = pk.data.flame_requests;
    const requests = pk.data.slow_requests?.requests;
    const live = [];
    const add = (name, figures) => {
      const table = root.querySelector(`[data-table="${name}"]`);
      if (!table) return;
      const rows = table.tBodies[0].rows.length;
      live.push({ name, table: pk.liveTable.create(table), figures: () => figures(rows) });
    };
    for (const name of ["operations", "components"]) {
      if (!flame || !data[name]) continue;
      const outer = pk.nodeSums.outermost(flame.tree, data[name]);
      add(name, (rows) => pk.nodeSums.sum(flame, data[name], outer, rows));
    }
    for (const [name, columns] of [["endpoints", ["service", "endpoint"]], ["tools", ["tool"]]]) {
      if (!requests || !data[name]) continue;
      const find = rowFinder(requests, data[name], columns);
      add(name, (rows) => byRequest(requests, find, rows));
    }
    const draw = flame && data.operations ? evidence(root, flame, data.operations) : () => {};
    const slide = sliders(root, data.what_if);
    const note = root.querySelector("[data-slot=scope]");
    const remark = note.textContent;
    return {
      update(state) {
        draw();
        slide(state);
        const filtered = pk.filter.active();
        for (const { table, figures } of live) filtered ? table.show(figures()) : table.restore();
        note.textContent = filtered
          ? "Figures of the requests that pass the filter, in the order of the whole; a dash where only the whole is known."
          : remark;
      },
    };
  });
}
