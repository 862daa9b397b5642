"use strict";
// The values of a call tree for a population, as a whole and by blocks of time. Blocks stand in for
// runs: how much they differ among themselves says how much of a difference is chance.
{
  const pk = (window.perfkit ??= {});
  const BLOCKS = 10; // as in perfkit/analysis/comparison/contrast.py
  const AMBIGUOUS = -2;

  const empty = (nodes) => ({ total: new Float64Array(nodes), self: new Float64Array(nodes) });

  const blocksFor = (rows, single) => (single ? 1 : Math.max(1, Math.min(BLOCKS, rows)));

  /** Adds up cells of requests: `choose` is pk.populations.choose of the groups. */
  function requests({ tree, groups, cells }, { passed, single }) {
    const nodes = tree.label.length;
    const rows = passed ? passed.reduce((sum, one) => sum + one, 0) : groups.start_ns.length;
    const blocks = Array.from({ length: blocksFor(rows, single) }, () => empty(nodes));
    const block = new Uint8Array(groups.start_ns.length);
    for (let i = 0, seen = 0; i < block.length; i++) {
      if (!passed || passed[i]) block[i] = Math.floor((seen++ * blocks.length) / rows);
    }
    const count = new Float64Array(nodes);
    for (let i = 0; i < cells.node.length; i++) {
      const group = cells.group[i];
      if (passed && !passed[group]) continue;
      const node = cells.node[i];
      const sums = blocks[block[group]];
      sums.total[node] += cells.total_ns[i];
      sums.self[node] += cells.self_ns[i];
      count[node] += cells.count[i];
    }
    return { ...added(blocks, nodes), count, blocks, rows };
  }

  /** The whole from its blocks. */
  function added(blocks, nodes) {
    const sum = empty(nodes);
    for (const block of blocks) {
      for (let i = 0; i < nodes; i++) {
        sum.total[i] += block.total[i];
        sum.self[i] += block.self[i];
      }
    }
    return sum;
  }

  /**
   * Own time of each stack. A time range cuts samples at its ends; with a choice of requests a sample
   * counts whole when its request does, and not at all when it is of no request or of several.
   */
  function select({ tree, samples }, { thread, state }, { passed, from, to }, take) {
    const cut = !passed && (from !== null || to !== null);
    const outcome = { samples: 0, ambiguous: 0, timeless: 0, whole: 0 };
    const { stack, start_ns: start, duration, entry, thread: threads, state: states } = samples;
    for (let i = 0; i < stack.length; i++) {
      let weight = duration[i];
      outcome.whole += weight;
      if (thread >= 0 && threads[i] !== thread) continue;
      if (state >= 0 && states[i] !== state) continue;
      if (passed && !(entry[i] >= 0 && passed[entry[i]])) {
        if (entry[i] === AMBIGUOUS) outcome.ambiguous += weight;
        continue;
      }
      if (cut) {
        const part = overlap(start[i], weight, tree.unit, from ?? -Infinity, to ?? Infinity);
        if (Number.isNaN(part)) outcome.timeless += weight;
        if (!(part > 0)) continue;
        weight = part;
      }
      take(stack[i], weight, i);
      outcome.samples++;
    }
    return outcome;
  }

  /** How much of a sample lies in a time range; NaN when nobody knows when it was. */
  function overlap(start, weight, unit, from, to) {
    if (Number.isNaN(start)) return NaN;
    if (unit === "samples") return start >= from && start < to ? weight : 0;
    return Math.min(start + weight, to) - Math.max(start, from);
  }

  /** Adds up samples of code without blocks: `self`, and what was left out. */
  function code(data, chosen, population) {
    const self = new Float64Array(data.tree.label.length);
    const outcome = select(data, chosen, population, (stack, weight) => (self[stack] += weight));
    return { self, ...outcome };
  }

  /** What each sample counts; 0 for those left out. */
  function weights(data, chosen, population) {
    const found = new Float64Array(data.samples.stack.length);
    select(data, chosen, population, (stack, weight, i) => (found[i] = weight));
    return found;
  }

  /** The same by blocks, with totals; `tree` is made by pk.tree.create. */
  function codeBlocks(data, tree, chosen, population) {
    const stacks = [];
    const weights = [];
    const outcome = select(data, chosen, population, (stack, weight) => {
      stacks.push(stack);
      weights.push(weight);
    });
    const count = blocksFor(stacks.length, population.single);
    const selves = Array.from({ length: count }, () => new Float64Array(tree.n));
    for (let i = 0; i < stacks.length; i++) {
      selves[Math.floor((i * count) / stacks.length)][stacks[i]] += weights[i];
    }
    const blocks = selves.map((self) => ({ self, total: pk.tree.propagate(tree, self) }));
    return { ...added(blocks, tree.n), blocks, ...outcome, rows: stacks.length };
  }

  /** Of the baseline the page has sums for each group; a time range is not told apart in it. */
  function baseline({ tree, groups, cells }, { state = -1 } = {}) {
    const nodes = tree.n;
    const choosing = pk.filter.choosesRequests({ ...pk.filter.state, min_duration_ns: 0 });
    const passed = choosing ? pk.filter.mask(groups) : null;
    const count = Math.max(...groups.block, 0) + 1;
    const blocks = Array.from({ length: count }, () => empty(nodes));
    const counts = cells.count ? new Float64Array(nodes) : undefined;
    for (let i = 0; i < cells.node.length; i++) {
      const group = cells.group[i];
      if (passed && !passed[group]) continue;
      if (cells.state && state >= 0 && cells.state[i] !== state) continue;
      const sums = blocks[groups.block[group]];
      const node = cells.node[i];
      sums.self[node] += cells.duration ? cells.duration[i] : cells.self_ns[i];
      if (cells.total_ns) sums.total[node] += cells.total_ns[i];
      if (counts) counts[node] += cells.count[i];
    }
    if (cells.duration) {
      for (const block of blocks) block.total = pk.tree.propagate(tree, block.self);
    }
    return { ...added(blocks, nodes), count: counts, blocks, rows: cells.node.length };
  }

  /** Values of one tree as values of another: `map[node]` is the node there. */
  function mapped(values, map, nodes) {
    const over = (column) => {
      const result = new Float64Array(nodes);
      for (let i = 0; i < map.length; i++) result[map[i]] += column[i];
      return result;
    };
    const part = ({ total, self }) => ({ total: over(total), self: over(self) });
    return {
      ...values,
      ...part(values),
      count: values.count && over(values.count),
      blocks: values.blocks.map(part),
    };
  }

  pk.sums = { requests, code, weights, codeBlocks, baseline, mapped };
}
