"use strict";
// Dependencies: a chosen box shows only what it calls and what calls it, in the graph and the table;
// the figures are of the requests that pass the filter.
{
  const pk = (window.perfkit ??= {});

  const CALLERS = "requests"; // as in perfkit/report/sections/dependencies.py

  /** Of each arrow and box: its figures in words for the requests that pass the filter. */
  function figures(flame, data, outer) {
    const sums = pk.nodeSums.sum(flame, data.row_of_node, outer.rows, data.rows.length);
    const own = pk.nodeSums.sum(flame, data.own_of_node, outer.own, data.own.length).critical_ns;
    const arrows = new Map();
    const add = (source, target, total, count) => {
      const key = JSON.stringify([source, target]);
      const arrow = arrows.get(key) ?? { total: 0, count: 0 };
      arrows.set(key, { total: arrow.total + total, count: arrow.count + count });
    };
    data.rows.forEach(([source, target], row) => add(source, target, sums.total_ns[row], sums.count[row]));
    const passed = pk.filter.mask(flame.groups);
    const { strings, service, duration_ns: duration, weight } = flame.groups;
    for (let i = 0; i < passed.length; i++) {
      if (!passed[i]) continue;
      const heavy = weight ? weight[i] : 1;
      add(CALLERS, service[i] < 0 ? "?" : strings[service[i]], heavy * duration[i], heavy);
    }
    const works = new Map();
    data.own.forEach((name, i) => works.set(name, (works.get(name) ?? 0) + own[i]));
    return { sums, works, arrow: (source, target) => arrows.get(JSON.stringify([source, target])) };
  }

  /** Writes the figures into the picture that the page came with, and puts those back. */
  class Picture {
    constructor(nodes, edges) {
      this.edges = edges.map((element) => {
        const [text, title, path] = ["text", "title", "path"].map((tag) => element.querySelector(tag));
        const thickness = path.getAttribute("stroke-width");
        return { element, text, title, path, thickness, before: [text.textContent, title.textContent] };
      });
      this.boxes = nodes.map((element) => {
        const said = element.querySelector(".graph-said");
        return { element, said, before: said.textContent };
      });
    }

    restore() {
      for (const { element, text, title, path, thickness, before } of this.edges) {
        [text.textContent, title.textContent] = before;
        path.setAttribute("stroke-width", thickness);
        element.classList.remove("is-none");
      }
      for (const { said, before } of this.boxes) said.textContent = before;
    }

    show({ arrow, works }) {
      const found = this.edges.map(({ element: { dataset } }) => arrow(dataset.source, dataset.target) ?? { total: 0, count: 0 });
      const most = Math.max(...found.map(({ total }) => total), 1);
      this.edges.forEach(({ element, text, title, path }, i) => {
        const { total, count } = found[i];
        const [time, times] = [pk.format.duration(total), pk.format.number(Math.round(count))];
        const { source, target } = element.dataset;
        text.textContent = count ? `${time} · ${times}` : "none";
        title.textContent = `${source} calls ${target}: ${time} in ${times}`;
        path.setAttribute("stroke-width", (1 + (7 * total) / most).toFixed(1));
        element.classList.toggle("is-none", !count);
      });
      for (const { element, said } of this.boxes) {
        const work = works.get(element.dataset.node);
        if (work !== undefined) said.textContent = `${pk.format.duration(work)} own work`;
      }
    }
  }

  /** Returns what makes graph and table follow the filter; `note` says what they are of. */
  function follower(root, data, nodes, edges) {
    const flame = pk.data.flame_requests;
    const note = root.querySelector("[data-slot=scope]");
    const table = root.querySelector("[data-table=dependencies]");
    if (!flame || !data.row_of_node || !table) {
      return () => (note.textContent = pk.filter.active() ? "Of all requests of the whole capture: this section cannot follow the filter here." : "");
    }
    const outer = {
      rows: pk.nodeSums.outermost(flame.tree, data.row_of_node),
      own: pk.nodeSums.outermost(flame.tree, data.own_of_node),
    };
    const [live, picture] = [pk.liveTable.create(table), new Picture(nodes, edges)];
    return () => {
      const filtered = pk.filter.active();
      note.textContent = filtered ? "Of the requests that pass the filter; a dash where only the whole is known." : "";
      if (!filtered) return live.restore(), picture.restore();
      const found = figures(flame, data, outer);
      live.show(found.sums);
      return picture.show(found);
    };
  }

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
    const note = root.querySelector("[data-slot=scope]");
    return note ? { update: follower(root, data, nodes, edges) } : {};
  });
}
