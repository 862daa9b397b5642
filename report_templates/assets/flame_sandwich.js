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

    /** Shows `label` of a tree; -1 when there is nothing to show. */
    show(tree, values, label) {
      this.shown = { tree, values };
      this.label = label;
      if (label < 0) {
        this.head.textContent = "Nothing is selected by the filter.";
        return;
      }
      this.input.value = pk.format.text(tree.strings[label], 400);
      const calls = pk.derive.callees(tree, values, label);
      const called = pk.derive.callers(tree, values, label);
      this.fill(this.above, called);
      this.fill(this.below, calls);
      const total = calls.values.total[0] ?? 0;
      const self = calls.values.self[0] ?? 0;
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
      const { labels, self } = pk.tree.byLabel(tree, values);
      labels.sort((a, b) => self[b] - self[a]);
      const options = labels
        .slice(0, 1000)
        .map((label) => el("option", { value: pk.format.text(tree.strings[label], 400) }));
      this.names.replaceChildren(...options);
    }

    choose(text) {
      const { tree, values } = this.shown ?? {};
      if (!tree) return;
      const label = tree.strings.findIndex((name) => pk.format.text(name, 400) === text);
      const used = label >= 0 && tree.label.includes(label);
      if (used) this.show(tree, values, label);
    }

    draw() {
      if (this.element.hidden || !this.shown) return;
      this.above.draw();
      this.below.draw();
    }
  }

  pk.flame.Sandwich = Sandwich;
}
