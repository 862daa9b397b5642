"use strict";
// Request flame graph: sums the cells of the requests that pass the filter. Exact, see
// perfkit/report/sections/flame_requests.py.
{
  const pk = (window.perfkit ??= {});

  function sums({ tree, groups, cells }) {
    const passed = pk.filter.mask(groups);
    const nodes = tree.label.length;
    const total = new Float64Array(nodes);
    const self = new Float64Array(nodes);
    const count = new Float64Array(nodes);
    for (let i = 0; i < cells.node.length; i++) {
      if (!passed[cells.group[i]]) continue;
      const node = cells.node[i];
      total[node] += cells.total_ns[i];
      self[node] += cells.self_ns[i];
      count[node] += cells.count[i];
    }
    return { total, self, count };
  }

  pk.section("flame_requests", (root, data) => {
    const view = pk.flame.create(root.querySelector("[data-slot=flame]"), data.tree, {
      name: "requests",
      whole: "all requests",
    });
    return { update: () => view.update(sums(data)) };
  });
}
