"use strict";
// A merged call tree in typed arrays. Parents come before their children, so that one pass over the
// nodes is enough to sum, to mark and to measure. Nothing here makes an object per node.
{
  const pk = (window.perfkit ??= {});
  const NONE = -1;

  /** Adds to a tree's columns what does not depend on values: children, depth, recursion. */
  function create(columns) {
    const { parent, label } = columns;
    const n = parent.length;
    const tree = { ...columns, n, depth: new Uint16Array(n) };
    const { start, list } = childLists(parent, n);
    tree.childStart = start; // children of node i: childList[childStart[i + 1] .. childStart[i + 2])
    tree.childList = list; // and of the whole (node -1): childList[0 .. childStart[1])
    for (let i = 0; i < n; i++) if (parent[i] >= 0) tree.depth[i] = tree.depth[parent[i]] + 1;
    // What counts as one function: its name and its file. Of spans it is the name.
    if (!tree.same) Object.assign(tree, identities(label, columns.file, columns.strings.length));
    tree.outermost = outermost(parent, tree.same, n);
    return tree;
  }

  /** Children by parent, by counting sort; slot 0 is the parent of the roots. */
  function childLists(parent, n) {
    const start = new Int32Array(n + 2);
    for (let i = 0; i < n; i++) {
      if (parent[i] >= i) throw new Error(`node ${i} of the tree comes before its parent`);
      start[parent[i] + 2]++;
    }
    for (let i = 1; i < n + 2; i++) start[i] += start[i - 1];
    const next = start.slice();
    const list = new Int32Array(n);
    for (let i = 0; i < n; i++) list[next[parent[i] + 1]++] = i;
    return { start, list };
  }

  /** Numbers for pairs of two columns, `same`, and how many there are, `sames`. */
  function identities(first, second, size) {
    if (!second) return { same: first, sames: size };
    const known = new Map();
    const same = Int32Array.from(first, (one, i) => {
      // A number as key: both are below 2**26, and their product is exact.
      const key = one * 2 ** 26 + (second[i] + 1);
      let number = known.get(key);
      if (number === undefined) known.set(key, (number = known.size));
      return number;
    });
    return { same, sames: known.size };
  }

  /** Numbers for lines of functions: `same` and `sames`, made when they are first asked for. */
  const lines = (tree) => (tree.lines ??= identities(tree.same, tree.line, tree.sames));

  /** Marks nodes with no node of their key above them: those that sums by that key count. */
  function outermost(parent, key, n) {
    const marks = new Uint8Array(n);
    for (let i = 0; i < n; i++) {
      let above = parent[i];
      while (above >= 0 && key[above] !== key[i]) above = parent[above];
      marks[i] = above < 0 ? 1 : 0;
    }
    return marks;
  }

  const children = (tree, node) =>
    tree.childList.subarray(tree.childStart[node + 1], tree.childStart[node + 2]);

  /** From the root to the node itself. */
  function path(tree, node) {
    const nodes = [];
    for (let i = node; i >= 0; i = tree.parent[i]) nodes.push(i);
    return nodes.reverse();
  }

  /** What a node is called, with its line where lines are told apart. */
  function name(tree, node) {
    const text = tree.strings[tree.label[node]];
    return tree.byLine && tree.line[node] > 0 ? `${text}:${tree.line[node]}` : text;
  }

  /** Total of each node from the self values below it. */
  function propagate(tree, self) {
    const total = Float64Array.from(self);
    for (let i = tree.n - 1; i > 0; i--) {
      if (tree.parent[i] >= 0) total[tree.parent[i]] += total[i];
    }
    return total;
  }

  /**
   * What the views need of values: `below` is the sum of the children's totals, `drawn` the share of
   * a node's total that is drawn (see `fit`), `whole` the sum of the roots.
   */
  function measure(tree, values) {
    const { total, self } = values;
    const below = new Float64Array(tree.n);
    const drawn = new Float64Array(tree.n);
    let whole = 0;
    for (let i = tree.n - 1; i >= 0; i--) {
      if (tree.parent[i] >= 0) below[tree.parent[i]] += total[i];
      else whole += total[i];
    }
    for (let i = 0; i < tree.n; i++) {
      const above = tree.parent[i];
      drawn[i] = above < 0 ? 1 : drawn[above] * fit(total[above], self[above], below[above]);
    }
    return { ...values, below, drawn, whole };
  }

  /**
   * By how much the children of a node are drawn narrower than their totals. Children that ran side
   * by side sum to more than their parent spent with them (total - self); drawn at full width they
   * would stick out, so they share that width in proportion.
   */
  function fit(total, self, below) {
    const room = Math.max(total - self, 0);
    // Sums of the same numbers in another order differ in the last bits: that is no overlap.
    return below > room * (1 + 1e-9) ? room / below : 1;
  }

  /** A function that says whether a text matches: part of it in any case, or /a pattern/. */
  function matcher(query) {
    const pattern = query.match(/^\/(.+)\/$/);
    if (!pattern) {
      const wanted = query.toLowerCase();
      return (text) => text.toLowerCase().includes(wanted);
    }
    try {
      const compiled = new RegExp(pattern[1], "i");
      return (text) => compiled.test(text);
    } catch {
      return null;
    }
  }

  /**
   * The nodes whose label, module or file matches. `ratio` is the share of the whole that is in matching
   * nodes, as drawn: a match below a match is counted once. Null when the pattern is no pattern.
   */
  function search(tree, values, query) {
    const matches = matcher(query);
    if (!matches) return null;
    const hit = Uint8Array.from(tree.strings, (text) => (matches(text) ? 1 : 0));
    const of = (column, i) => column && column[i] >= 0 && hit[column[i]];
    const nodes = new Uint8Array(tree.n);
    const covered = new Uint8Array(tree.n);
    let count = 0;
    let sum = 0;
    for (let i = 0; i < tree.n; i++) {
      const above = tree.parent[i];
      covered[i] = above >= 0 && (covered[above] || nodes[above]) ? 1 : 0;
      if (!hit[tree.label[i]] && !of(tree.module, i) && !of(tree.file, i)) continue;
      nodes[i] = 1;
      if (values.total[i] > 0) count++;
      if (!covered[i]) sum += values.total[i] * values.drawn[i];
    }
    return { nodes, count, ratio: values.whole > 0 ? sum / values.whole : 0 };
  }

  /**
   * Sums by function, or by another key {same, sames}: self of all nodes, total of the outermost
   * (recursion is counted once), and the heaviest node of each. `keys` are those that occur.
   */
  function sums(tree, values, by = tree) {
    const { same, sames } = by;
    by.outermost ??= outermost(tree.parent, same, tree.n);
    const self = new Float64Array(sames);
    const total = new Float64Array(sames);
    const node = new Int32Array(sames).fill(NONE);
    for (let i = 0; i < tree.n; i++) {
      const key = same[i];
      self[key] += values.self[i];
      if (by.outermost[i]) total[key] += values.total[i];
      if (values.total[i] > 0) {
        const best = node[key];
        if (best < 0 || values.total[i] > values.total[best]) node[key] = i;
      }
    }
    const keys = [];
    for (let key = 0; key < sames; key++) if (node[key] >= 0) keys.push(key);
    return { keys, self, total, node };
  }

  pk.tree = { NONE, create, children, path, name, propagate, measure, fit, search, sums, lines };
}
