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

  /** A panel of how many requests took how long, when. Rows from slow to fast. */
  function latencyPanel(requests) {
    const limits = bounds(requests.duration_ns);
    const classes = Math.max(limits.length - 1, 1);
    const rows = [];
    for (let k = classes - 1; k >= 0; k--) rows.push(`≥ ${pk.format.duration(limits[k])}`);
    const bucket = Math.max(pk.data.page.duration_ns / COLUMNS, 1);
    const panel = {
      title: "Latency of requests",
      unit: "count",
      rows,
      start_ns: 0,
      bucket_ns: bucket,
      columns: COLUMNS,
      values: new Float32Array(classes * COLUMNS),
      log: true,
    };
    return { panel, count: () => counted(requests, limits, classes, bucket) };
  }

  function counted(requests, limits, classes, bucket) {
    const passed = pk.filter.mask(requests);
    const values = new Float32Array(classes * COLUMNS);
    for (let i = 0; i < passed.length; i++) {
      if (!passed[i]) continue;
      const column = Math.min(Math.max(Math.floor(requests.start_ns[i] / bucket), 0), COLUMNS - 1);
      let k = 0;
      while (k < classes - 1 && requests.duration_ns[i] >= limits[k + 1]) k++;
      values[(classes - 1 - k) * COLUMNS + column] += requests.weight ? requests.weight[i] : 1;
    }
    for (let i = 0; i < values.length; i++) if (values[i] === 0) values[i] = NaN;
    return values;
  }

  pk.section("heatmaps", (root, data) => {
    const slot = root.querySelector("[data-slot=panels]");
    const requests = pk.data.slow_requests?.requests;
    pk.timeline.lanes(slot);
    let latency = null;
    let map = null;
    if (requests?.start_ns.length) {
      latency = latencyPanel(requests);
      latency.panel.values = latency.count();
      map = pk.heatmap.create(slot, latency.panel);
    }
    for (const panel of data.panels) pk.heatmap.create(slot, panel);
    let first = true;
    return {
      update() {
        if (!first) map?.update(latency.count());
        first = false;
      },
    };
  });
}
