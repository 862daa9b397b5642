"use strict";
// Slow queries: the table's figures from the calls of the requests that pass the filter.
{
  const pk = (window.perfkit ??= {});

  function figures(calls, rows, requests) {
    const passed = pk.filter.mask(requests);
    const durations = Array.from({ length: rows }, () => []);
    const weights = Array.from({ length: rows }, () => []);
    for (let i = 0; i < calls.query.length; i++) {
      const request = calls.request[i];
      if (!passed[request]) continue;
      durations[calls.query[i]].push(calls.duration_ns[i]);
      weights[calls.query[i]].push(requests.weight ? requests.weight[request] : 1);
    }
    let requestTime = 0;
    for (let i = 0; i < passed.length; i++) {
      if (passed[i]) requestTime += requests.duration_ns[i] * (requests.weight ? requests.weight[i] : 1);
    }
    const columns = { share_ratio: [], total_ns: [], calls: [], mean_ns: [], p95_ns: [], p99_ns: [], max_ns: [] };
    for (let row = 0; row < rows; row++) summarise(columns, durations[row], weights[row], requestTime, requests);
    return columns;
  }

  function summarise(columns, durations, weights, requestTime, requests) {
    let total = 0;
    let calls = 0;
    let most = NaN;
    durations.forEach((duration, i) => {
      total += duration * weights[i];
      calls += weights[i];
      most = Math.max(Number.isNaN(most) ? 0 : most, duration);
    });
    const [p95, p99] = pk.liveTable.quantiles(durations, requests.weight ? weights : null, [0.95, 0.99]);
    columns.total_ns.push(total);
    columns.calls.push(calls);
    columns.share_ratio.push(requestTime > 0 ? total / requestTime : NaN);
    columns.mean_ns.push(calls > 0 ? total / calls : NaN);
    columns.p95_ns.push(p95);
    columns.p99_ns.push(p99);
    columns.max_ns.push(most);
  }

  pk.section("slow_queries", (root, data) => {
    const requests = pk.data.slow_requests?.requests;
    const table = root.querySelector("[data-table=queries]");
    if (!requests || !table) return {};
    const live = pk.liveTable.create(table);
    const rows = table.tBodies[0].rows.length;
    return {
      update() {
        if (pk.filter.active()) live.show(figures(data.calls, rows, requests));
        else live.restore();
      },
    };
  });
}
