"use strict";
// Request flame graph: sums the cells of the requests that pass the filter. Exact, see
// perfkit/report/sections/flame_requests.py.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;

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

  const alike = (count) =>
    `This capture is large: shown is not the request alone but all ${pk.format.plural(Math.round(count), "request")} of its endpoint, tool, status, time and duration that it was added up with.`;

  pk.section("flame_requests", (root, data) => {
    const view = pk.flame.create(root.querySelector("[data-slot=flame]"), data.tree, {
      name: "requests",
      whole: "all requests",
    });
    const remark = el("p", { class: "note is-warning", "aria-live": "polite", hidden: true });
    root.querySelector("[data-slot=flame]").before(remark);
    return {
      update({ request }) {
        const bin = request === null ? undefined : data.groups.of_request?.[request];
        remark.hidden = bin === undefined;
        if (bin !== undefined) remark.textContent = alike(data.groups.weight[bin]);
        return view.update(sums(data));
      },
    };
  });
}
