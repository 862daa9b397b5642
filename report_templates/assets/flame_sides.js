"use strict";
// Two populations of one tree beside each other: zooming one zooms the other.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;

  class Sides {
    constructor(titles) {
      this.element = el("div", { class: "flame-sides" });
      this.heads = titles.map((text) => el("h4", { text }));
      this.stages = this.heads.map((head, i) => {
        const box = el("div", { class: "flame-side" }, head);
        this.element.append(box);
        return new pk.flame.Stage(box, {
          whole: titles[i],
          tall: true,
          colour: "difference",
          onview: (view) => this.follow(this.stages[1 - i], view),
        });
      });
    }

    follow(stage, view) {
      stage.zoom(view);
    }

    /** Shows both sides of a difference. */
    show(tree, values, difference) {
      this.heads.forEach((head, i) => {
        const of = i ? difference.baseline : values;
        const title = difference.titles[i];
        head.textContent = `${title[0].toUpperCase()}${title.slice(1)}: ${pk.format.value(of.whole, tree.unit)}`;
      });
      this.stages[0].show(tree, values, difference);
      this.stages[1].show(tree, difference.baseline, difference);
    }
  }

  pk.flame.Sides = Sides;
}
