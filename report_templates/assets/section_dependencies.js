"use strict";
// Dependencies: a chosen box shows only what it calls and what calls it, in the graph and the table.
{
  const pk = (window.perfkit ??= {});

  pk.section("dependencies", (root, data) => {
    const nodes = [...root.querySelectorAll(".graph-node")];
    const edges = [...root.querySelectorAll(".graph-edge")];
    const rows = [...root.querySelectorAll("[data-table=dependencies] tbody tr")];
    let chosen = pk.filter.view("dependency");

    function show() {
      if (!nodes.some(({ dataset }) => dataset.node === chosen)) chosen = null;
      const near = new Set([chosen]);
      for (const { dataset } of edges) {
        if (dataset.source === chosen) near.add(dataset.target);
        if (dataset.target === chosen) near.add(dataset.source);
      }
      for (const node of nodes) {
        node.classList.toggle("is-far", chosen !== null && !near.has(node.dataset.node));
        node.setAttribute("aria-pressed", String(node.dataset.node === chosen));
      }
      for (const edge of edges) {
        const { source, target } = edge.dataset;
        edge.classList.toggle("is-far", chosen !== null && source !== chosen && target !== chosen);
      }
      for (const row of rows) {
        const [caller, callee] = data.rows[Number(row.dataset.row)];
        row.hidden = chosen !== null && chosen !== "requests" && caller !== chosen && callee !== chosen;
      }
    }

    function choose(name) {
      chosen = chosen === name ? null : name;
      pk.filter.setView("dependency", chosen);
      show();
    }

    for (const node of nodes) {
      node.setAttribute("role", "button");
      node.setAttribute("tabindex", "0");
      node.setAttribute("aria-label", node.querySelector("title").textContent);
      node.addEventListener("click", () => choose(node.dataset.node));
      node.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && chosen !== null) choose(chosen);
        else if (event.key !== "Enter" && event.key !== " ") return;
        else choose(node.dataset.node);
        event.preventDefault();
      });
    }
    show();
    return {};
  });
}
