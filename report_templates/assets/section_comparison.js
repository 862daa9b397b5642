"use strict";
// Any two populations as a difference flame graph and side by side, of requests and of code.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;
  const STATES = [["1", "Running"], ["3", "Woke up"], ["2", "Waiting"], ["-1", "All"]];

  /** What is compared of requests: the tree, and the values of a population in it. */
  function ofRequests({ requests: joined }) {
    const data = pk.data.flame_requests;
    if (!data?.tree) return null;
    const tree = pk.tree.create(joined?.tree ?? data.tree);
    return {
      tree: joined?.tree ?? data.tree,
      baseline: joined && (() => pk.sums.baseline({ ...joined, tree })),
      values(key) {
        const values = pk.sums.requests(data, pk.populations.choose(key, data.groups));
        return joined ? pk.sums.mapped(values, joined.map, tree.n) : values;
      },
    };
  }

  /** The same of code; `chosen` has the state of the thread. */
  function ofCode({ code: joined }, chosen) {
    const data = pk.data.flame_code;
    if (!data?.tree) return null;
    const requests = pk.data.slow_requests?.requests;
    const own = pk.tree.create(data.tree);
    const tree = joined ? pk.tree.create(joined.tree) : own;
    return {
      tree: joined?.tree ?? data.tree,
      baseline: joined && (() => pk.sums.baseline({ ...joined, tree }, chosen)),
      values(key) {
        const values = pk.sums.codeBlocks(
          data,
          own,
          chosen,
          pk.populations.choose(key, requests, { timed: true }),
        );
        return joined ? pk.sums.mapped(values, joined.map, tree.n) : values;
      },
    };
  }

  /** One kind of flame graph, of requests or of code, with its tabs. */
  class Graph {
    constructor(element, kind, source, titles) {
      this.source = source;
      this.titles = titles;
      const { categories } = source.tree;
      this.view = pk.flame.create(element, source.tree, {
        name: `difference-${kind}`,
        whole: kind === "code" ? "all code" : "all requests",
        titles,
        library:
          kind === "code"
            ? ["library", "stdlib", "native"].filter((one) => categories.includes(one))
            : [],
        tabs: (view) => {
          const sides = new pk.flame.Sides(titles);
          const changes = new pk.flame.Changes();
          const show = (part) => () =>
            view.difference && part.show(view.tree, view.values, view.difference);
          return [
            ["Side by side", sides.element, show(sides)],
            ["What differs", changes.element, show(changes)],
          ];
        },
      });
    }

    update(keys) {
      const [first, second] = keys.map((key) =>
        key === "baseline" && this.source.baseline ? this.source.baseline() : this.source.values(key),
      );
      this.rows = [first.rows, second.rows];
      return this.view.update(first, second);
    }
  }

  pk.section("comparison", (root, data) => {
    const slot = root.querySelector("[data-slot=flame]");
    if (!slot) return {};
    const controls = root.querySelector("[data-slot=controls]");
    const requests = pk.data.slow_requests?.requests;
    const baseline = data.baseline?.name ?? null;
    const chosen = { thread: -1, state: pk.data.flame_code?.samples.state.includes(1) ? 1 : -1 };
    const graphs = [];
    const titles = ["", ""];
    const usual = baseline ? ["all", "baseline"] : requests?.start_ns.length ? ["slow", "typical"] : ["late", "early"];
    const keys = ["a", "b"].map((side, i) => pk.filter.view(`compare.${side}`) ?? usual[i]);
    const remark = el("p", { class: "note", "aria-live": "polite" });
    const selects = keys.map((_, i) => el("span"));

    function offer() {
      const choices = pk.populations.choices(requests, { baseline, extra: keys });
      selects.forEach((place, i) => {
        const label = i ? "Second population" : "First population";
        const select = pk.dom.select(label, choices, keys[i], (key) => set(i, key));
        place.replaceChildren(select);
      });
    }

    function set(i, key) {
      keys[i] = key;
      pk.filter.setView(`compare.${"ab"[i]}`, key === usual[i] ? null : key);
      offer();
      update();
    }

    function controlsOf() {
      const keep = (i) =>
        pk.dom.button(i ? "Keep filter as second" : "Keep filter as first", () => set(i, pk.populations.keyOfFilter()), {
          title: "The filter bar's present choice stays on this side when the filter changes",
        });
      const swap = pk.dom.button("Swap", () => {
        const [first, second] = keys;
        set(0, second);
        set(1, first);
      });
      return [selects[0], el("span", { class: "muted", text: "against" }), selects[1], swap, keep(0), keep(1)];
    }

    const kinds = [["requests", "Requests", ofRequests(data)], ["code", "Code", ofCode(data, chosen)]].filter(
      ([, , source]) => source,
    );
    if (!kinds.length) return {};
    controls.append(...controlsOf());
    if (kinds.some(([kind]) => kind === "code") && chosen.state >= 0) {
      const { state: states } = pk.data.flame_code.samples;
      const known = STATES.filter(([code]) => code === "-1" || states.includes(Number(code)));
      const state = pk.dom.choice("State of the thread", known, "1", (value) => {
        chosen.state = Number(value);
        update();
      });
      controls.append(el("span", { class: "muted", text: "code" }), state);
    }
    const panels = kinds.map(([kind, title, source]) => {
      const panel = el("div", { class: "comparison-kind" });
      return [title, panel, () => show(kind, source, panel)];
    });
    if (panels.length > 1) slot.append(pk.dom.tabs("What is compared", panels));
    slot.append(...panels.map(([, panel]) => panel), remark);

    /** A graph is made when it is first seen. */
    function show(kind, source, panel) {
      let graph = graphs.find((one) => one.kind === kind);
      if (!graph) {
        graph = { kind, panel, graph: new Graph(panel, kind, source, titles) };
        graphs.push(graph);
      }
      return refresh(graph);
    }

    function refresh({ graph, kind }) {
      keys.forEach((key, i) => (titles[i] = pk.populations.title(key)));
      if (titles[0] === titles[1]) titles[1] = `${titles[1]} (second)`;
      const drawn = graph.update(keys);
      say(graph, kind);
      return drawn;
    }

    function say({ rows, view }, kind) {
      const unit = kind === "code" ? "sample" : "request";
      const parts = keys.map((key, i) =>
        key === "baseline"
          ? "the baseline as a whole, but for the filter by endpoint, tool, service and status"
          : `${titles[i]}: ${pk.format.plural(rows[i], unit)}`,
      );
      const lacks = [];
      if (!view.difference.known) {
        lacks.push("One side has too little to say what is chance: colours show every difference above 0.1 % of all.");
      }
      const binned = kind === "code" ? pk.data.slow_requests?.coarse : pk.data.flame_requests?.coarse;
      if (binned && keys.some((key) => key === "slow" || key === "typical")) {
        lacks.push("This capture is large: slow and typical are told by bins of requests of about the same time and duration.");
      }
      if (rows.some((count) => count === 0)) lacks.push("One side is empty.");
      if (keys.includes("baseline") && !data[kind]) lacks.push(`The baseline has no ${kind === "code" ? "samples" : "requests"}.`);
      remark.textContent = `${parts.join("; ")}. ${lacks.join(" ")}`;
    }

    function update() {
      const shown = graphs.filter(({ panel }) => !panel.hidden);
      if (shown.length) return Promise.all(shown.map(refresh));
      const [, panel] = panels[0];
      return show(kinds[0][0], kinds[0][2], panel);
    }

    offer();
    pk.compare = {
      /** Puts a population on a side (0 or 1) and shows the section. */
      set(i, key) {
        set(i, key);
        root.scrollIntoView();
      },
    };
    return { update };
  });
}
