"use strict";
// One function between those that call it, above, and those that it calls, below.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;

  class Sandwich {
    constructor(element, options) {
      this.element = element;
      this.head = el("div", { class: "sandwich-head" });
      this.names = el("datalist", { id: `${options.name || "flame"}-names` });
      this.input = el("input", {
        class: "input",
        list: this.names.id,
        placeholder: "Function",
        "aria-label": "Function to show callers and callees of",
        on: { change: () => this.choose(this.input.value) },
      });
      element.append(el("div", { class: "toolbar" }, this.input, this.names, this.head));
      this.above = this.part("Callers", "flame");
      this.below = this.part("Callees", "icicle");
    }

    part(title, orientation) {
      const box = el("div", { class: "sandwich-part" }, el("h4", { text: title }));
      this.element.append(box);
      return new pk.flame.Stage(box, { base: 0, orientation });
    }

    /** Shows the function of a node of a tree; -1 when there is nothing to show. */
    show(tree, values, node) {
      this.shown = { tree, values };
      if (node < 0) {
        this.head.textContent = "Nothing is selected by the filter.";
        return;
      }
      this.input.value = pk.format.text(tree.strings[tree.label[node]], 400);
      this.input.title = tree.file?.[node] >= 0 ? pk.format.text(tree.strings[tree.file[node]], 400) : "";
      const calls = pk.derive.callees(tree, values, tree.same[node]);
      const called = pk.derive.callers(tree, values, tree.same[node]);
      this.fill(this.above, called);
      this.fill(this.below, calls);
      const total = calls.values.total[0] ?? 0;
      // Its own time is also that of the calls in which it is called again below itself.
      let self = 0;
      for (let i = 0; i < tree.n; i++) if (tree.same[i] === tree.same[node]) self += values.self[i];
      const amount = (value) =>
        `${pk.format.value(value, tree.unit)} (${pk.format.percent(value / values.whole)})`;
      this.head.textContent = `total ${amount(total)} · self ${amount(self)}`;
      this.offer(tree, values);
    }

    fill(stage, { tree, values }) {
      if (tree.n) stage.show(tree, pk.tree.measure(tree, values));
    }

    offer(tree, values) {
      if (this.offered === tree) return;
      this.offered = tree;
      const { keys, self, node } = pk.tree.sums(tree, values);
      keys.sort((a, b) => self[b] - self[a]);
      this.known = new Map();
      for (const key of keys) {
        const text = pk.format.text(tree.strings[tree.label[node[key]]], 400);
        // Functions of one name in several files are told apart by these.
        const file = tree.file?.[node[key]] >= 0 ? tree.strings[tree.file[node[key]]] : "";
        this.known.set(this.known.has(text) ? `${text} (${pk.format.text(file, 400)})` : text, node[key]);
      }
      const options = [...this.known.keys()].slice(0, 1000).map((value) => el("option", { value }));
      this.names.replaceChildren(...options);
    }

    choose(text) {
      const { tree, values } = this.shown ?? {};
      if (!tree) return;
      const named = (label) => pk.format.text(tree.strings[label], 400) === text;
      const node = this.known.get(text) ?? tree.label.findIndex(named);
      if (node >= 0) this.show(tree, values, node);
    }

    draw() {
      if (this.element.hidden || !this.shown) return;
      this.above.draw();
      this.below.draw();
    }
  }

  pk.flame.Sandwich = Sandwich;
}
