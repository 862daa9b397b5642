"use strict";
// Heatmaps on one time axis: latency of the chosen requests, then what the metrics say.
{
  const pk = (window.perfkit ??= {});
  const COLUMNS = 120;
  // Bounds of the latency classes: 1, 2, 5, 10 … of the decades that occur.
  const STEPS = [1, 2, 5];

  function bounds(durations) {
    let low = Infinity;
    let high = 0;
    for (const duration of durations) {
      if (duration > 0 && duration < low) low = duration;
      if (duration > high) high = duration;
    }
    if (!(high > 0)) return [1e6];
    const all = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const step of STEPS) all.push(step * 10 ** power);
    }
    const from = Math.max(
      all.findLastIndex((bound) => bound <= low),
      0,
    );
    const to = all.findIndex((bound) => bound >= high);
    return all.slice(from, (to < 0 ? all.length : to) + 1).slice(-16);
  }

  /**
   * A panel of how many requests, or calls, took how long, when. Rows from slow to fast. `each` calls
   * back with (column, duration, weight) for what passes the filter.
   */
  function latencyPanel(title, of, durations, each) {
    const limits = bounds(durations);
    const classes = Math.max(limits.length - 1, 1);
    const rows = [];
    for (let k = classes - 1; k >= 0; k--) rows.push(`≥ ${pk.format.duration(limits[k])}`);
    const count = () => {
      const values = new Float32Array(classes * COLUMNS);
      each((column, duration, weight) => {
        let k = 0;
        while (k < classes - 1 && duration >= limits[k + 1]) k++;
        values[(classes - 1 - k) * COLUMNS + column] += weight;
      });
      for (let i = 0; i < values.length; i++) if (values[i] === 0) values[i] = NaN;
      return values;
    };
    const panel = {
      title,
      unit: "count",
      of,
      rows,
      start_ns: 0,
      bucket_ns: Math.max(pk.data.page.duration_ns / COLUMNS, 1),
      columns: COLUMNS,
      values: count(),
      log: true,
    };
    return { panel, count };
  }

  const weightOf = (requests, i) => (requests.weight ? requests.weight[i] : 1);

  function ofRequests(requests) {
    const bucket = Math.max(pk.data.page.duration_ns / COLUMNS, 1);
    return latencyPanel("Latency of requests", "requests", requests.duration_ns, (add) => {
      const passed = pk.filter.mask(requests);
      for (let i = 0; i < passed.length; i++) {
        if (!passed[i]) continue;
        const column = Math.min(Math.max(Math.floor(requests.start_ns[i] / bucket), 0), COLUMNS - 1);
        add(column, requests.duration_ns[i], weightOf(requests, i));
      }
    });
  }

  function ofQueries(calls, requests) {
    return latencyPanel("Latency of queries", "queries", calls.duration_ns, (add) => {
      const passed = pk.filter.mask(requests);
      for (let i = 0; i < calls.request.length; i++) {
        const request = calls.request[i];
        if (passed[request]) add(calls.column[i], calls.duration_ns[i], weightOf(requests, request));
      }
    });
  }

  pk.section("heatmaps", (root, data) => {
    const slot = root.querySelector("[data-slot=panels]");
    const requests = pk.data.slow_requests?.requests;
    const calls = pk.data.slow_queries?.calls;
    pk.timeline.lanes(slot);
    const live = [];
    if (requests?.start_ns.length) live.push(ofRequests(requests));
    if (requests && calls?.request.length) live.push(ofQueries(calls, requests));
    const maps = live.map(({ panel }) => pk.heatmap.create(slot, panel));
    for (const panel of data.panels) pk.heatmap.create(slot, panel);
    const calendar = requests?.start_ns.length ? pk.calendar.create(slot, requests) : null;
    let first = true;
    return {
      update() {
        if (!first) maps.forEach((map, i) => map.update(live[i].count()));
        if (!first) calendar?.update();
        first = false;
      },
    };
  });
}
