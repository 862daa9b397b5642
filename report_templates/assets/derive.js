"use strict";
// Trees made from a tree: without library frames, what a function calls, and who calls it.
{
  const pk = (window.perfkit ??= {});

  /** Collects nodes, merging those with the same label under the same parent. */
  class Builder {
    constructor(tree, { ordered = false } = {}) {
      this.source = tree;
      this.ordered = ordered;
      this.known = new Map();
      this.parent = [];
      this.from = [];
    }

    /** The node for `label` of source node `node` under `parent` (-1: a root). */
    node(parent, node) {
      // A number as key: parent and label are below 2**26 each, and their product is exact.
      const key = (parent + 1) * this.source.strings.length + this.source.label[node];
      let found = this.known.get(this.ordered ? parent : key);
      // In the order of time only what follows one another is one.
      if (this.ordered && found !== undefined && this.source.label[this.from[found]] !== this.source.label[node])
        found = undefined;
      if (found === undefined) {
        found = this.parent.length;
        this.known.set(this.ordered ? parent : key, found);
        this.parent.push(parent);
        this.from.push(node);
      }
      return found;
    }

    /** The tree, with every other column taken from the first source node of each node. */
    tree() {
      const { source } = this;
      const columns = { ...source, parent: Int32Array.from(this.parent) };
      for (const name of ["label", "category", "module", "file", "line"]) {
        if (source[name])
          columns[name] = source[name].constructor.from(this.from, (i) => source[name][i]);
      }
      return pk.tree.create(columns);
    }
  }

  /**
   * The tree without the nodes of the hidden categories; what they called moves up to the nearest
   * node that is shown, and so does their own time. `map[node]` is the new node, -1 for time of
   * hidden nodes that nothing shown is above of.
   */
  function without(tree, hiddenCategories) {
    const hidden = Uint8Array.from(tree.categories, (name) =>
      hiddenCategories.includes(name) ? 1 : 0,
    );
    const builder = new Builder(tree, { ordered: tree.ordered });
    const map = new Int32Array(tree.n);
    for (let i = 0; i < tree.n; i++) {
      const above = tree.parent[i] < 0 ? -1 : map[tree.parent[i]];
      map[i] = hidden[tree.category[i]] ? above : builder.node(above, i);
    }
    return { tree: builder.tree(), map };
  }

  /** Self values of a tree moved to the tree that `map` leads to; the rest is given as `lost`. */
  function moved(map, self, n) {
    const result = new Float64Array(n);
    let lost = 0;
    for (let i = 0; i < map.length; i++) {
      if (map[i] >= 0) result[map[i]] += self[i];
      else lost += self[i];
    }
    return { self: result, lost };
  }

  /** What `label` calls: the subtrees of its outermost nodes, merged into one. */
  function callees(tree, values, label) {
    const builder = new Builder(tree);
    const map = new Int32Array(tree.n).fill(-1);
    for (let i = 0; i < tree.n; i++) {
      const above = tree.parent[i];
      if (above >= 0 && map[above] >= 0) map[i] = builder.node(map[above], i);
      else if (tree.label[i] === label) map[i] = builder.node(-1, i);
    }
    const merged = builder.tree();
    const sums = { total: new Float64Array(merged.n), self: new Float64Array(merged.n) };
    for (let i = 0; i < tree.n; i++) {
      if (map[i] < 0) continue;
      sums.total[map[i]] += values.total[i];
      sums.self[map[i]] += values.self[i];
    }
    return { tree: merged, values: sums };
  }

  /** Who calls `label`: the paths above its outermost nodes, turned round and merged. */
  function callers(tree, values, label) {
    const builder = new Builder(tree);
    const total = [];
    for (let i = 0; i < tree.n; i++) {
      if (tree.label[i] !== label || !tree.outermost[i] || !(values.total[i] > 0)) continue;
      let below = -1;
      for (let node = i; node >= 0; node = tree.parent[node]) {
        below = builder.node(below, node);
        total[below] = (total[below] ?? 0) + values.total[i];
      }
    }
    const merged = builder.tree();
    const sums = { total: Float64Array.from(total), self: new Float64Array(merged.n) };
    // Its own share is what no caller above it explains: the time of calls that start a path.
    sums.self.set(sums.total);
    for (let i = 0; i < merged.n; i++) {
      if (merged.parent[i] >= 0) sums.self[merged.parent[i]] -= sums.total[i];
    }
    for (let i = 0; i < merged.n; i++) sums.self[i] = Math.max(sums.self[i], 0);
    return { tree: merged, values: sums };
  }

  pk.derive = { without, moved, callees, callers };
}
