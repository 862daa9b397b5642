"use strict";
// Trees made from a tree: with other frames, what a function calls, and who calls it.
{
  const pk = (window.perfkit ??= {});

  /** Collects nodes, merging those of the same key under the same parent; `by` is {same, sames}. */
  class Builder {
    constructor(tree, by = tree) {
      this.source = tree;
      this.by = by;
      this.known = new Map();
      this.parent = [];
      this.from = [];
    }

    /** The node for source node `node` under `parent` (-1: a root). */
    node(parent, node) {
      const { same, sames } = this.by;
      const { ordered } = this.source;
      // A number as key: parent and key are below 2**26 each, and their product is exact.
      const key = ordered ? parent : (parent + 1) * sames + same[node];
      let found = this.known.get(key);
      // In the order of time only what follows one another is one.
      if (ordered && found !== undefined && same[this.from[found]] !== same[node]) found = undefined;
      if (found === undefined) {
        found = this.parent.length;
        this.known.set(key, found);
        this.parent.push(parent);
        this.from.push(node);
      }
      return found;
    }

    /** The tree, with every other column taken from the first source node of each node. */
    tree() {
      const { source } = this;
      const columns = { ...source, parent: Int32Array.from(this.parent), lines: undefined };
      for (const name of ["label", "category", "module", "file", "line", "same"]) {
        if (source[name])
          columns[name] = source[name].constructor.from(this.from, (i) => source[name][i]);
      }
      return pk.tree.create(columns);
    }
  }

  /**
   * The tree as it is asked for, null for itself: `lines` told apart or not, without the nodes of
   * the `hidden` categories (what they called moves up to the nearest node that is shown, and so does
   * their own time), and with `recursion` merged: what a function does when it is called again below
   * itself belongs to its outermost call. `map[node]` is the new node, -1 for time of hidden nodes
   * that nothing shown is above of; `from[new]` a node of which it is made.
   */
  function shaped(tree, { lines = false, hidden = [], recursion = false } = {}) {
    const away = Uint8Array.from(tree.categories, (name) => (hidden.includes(name) ? 1 : 0));
    const builder = new Builder(tree, lines && tree.line ? pk.tree.lines(tree) : tree);
    const map = new Int32Array(tree.n);
    for (let i = 0; i < tree.n; i++) {
      const above = tree.parent[i] < 0 ? -1 : map[tree.parent[i]];
      if (away[tree.category[i]]) map[i] = above;
      else {
        const outer = recursion ? called(builder, above, tree.same[i]) : -1;
        map[i] = outer >= 0 ? outer : builder.node(above, i);
      }
    }
    const same = builder.parent.length === tree.n;
    const made = same ? { ...tree } : builder.tree();
    made.byLine = lines;
    if (!lines && tree.line && !same) forgetLines(tree, map, made);
    return { tree: made, map: same ? null : map, from: builder.from };
  }

  /** What several lines are merged into is at none of them. */
  function forgetLines(tree, map, made) {
    const first = made.line.slice();
    for (let i = 0; i < tree.n; i++)
      if (map[i] >= 0 && made.same[map[i]] === tree.same[i] && tree.line[i] !== first[map[i]]) made.line[map[i]] = 0;
  }

  /** The node of a function on the path that ends at `node`, or -1. */
  function called(builder, node, same) {
    let above = node;
    while (above >= 0 && builder.source.same[builder.from[above]] !== same) above = builder.parent[above];
    return above;
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

  /** What function `same` calls: the subtrees of its outermost nodes, merged into one. */
  function callees(tree, values, same) {
    const builder = new Builder(tree);
    const map = new Int32Array(tree.n).fill(-1);
    for (let i = 0; i < tree.n; i++) {
      const above = tree.parent[i];
      if (above >= 0 && map[above] >= 0) map[i] = builder.node(map[above], i);
      else if (tree.same[i] === same) map[i] = builder.node(-1, i);
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

  /** Who calls function `same`: the paths above its outermost nodes, turned round and merged. */
  function callers(tree, values, same) {
    const builder = new Builder(tree);
    const total = [];
    for (let i = 0; i < tree.n; i++) {
      if (tree.same[i] !== same || !tree.outermost[i] || !(values.total[i] > 0)) continue;
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

  pk.derive = { shaped, moved, callees, callers };
}
