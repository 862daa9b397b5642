"use strict";
// Stacks in the order of time, thread by thread: what a merged flame graph cannot show.
{
  const pk = (window.perfkit ??= {});
  const MOST_NODES = 200_000;

  /**
   * The columns of a tree in which a frame is one bar for as long as the samples that follow one
   * another in its thread have it, and its own time. Roots are the threads. What is not chosen
   * (other states, say) lies between without room of its own. `samples` are in the order of time;
   * `weigh(i)` is what sample i counts, 0 for none. `left` is the time beyond MOST_NODES.
   */
  function create(tree, samples, threads, weigh) {
    const strings = [...tree.strings, ...threads];
    const open = threads.map(() => null);
    const made = { parent: [], from: [], self: [] };
    let left = 0;
    const add = (parent, from) => {
      made.parent.push(parent);
      made.from.push(from);
      made.self.push(0);
      return made.parent.length - 1;
    };
    for (const i of byThread(samples, threads.length)) {
      const weight = weigh(i);
      if (!(weight > 0)) continue;
      const thread = samples.thread[i];
      const path = pk.tree.path(tree, samples.stack[i]);
      if (made.parent.length + path.length > MOST_NODES) {
        left += weight;
        continue;
      }
      open[thread] ??= { root: add(-1, -1 - thread), path: [], nodes: [] };
      const now = open[thread];
      let same = 0;
      while (same < path.length && now.path[same] === path[same]) same++;
      now.nodes.length = same;
      for (let k = same; k < path.length; k++)
        now.nodes.push(add(k ? now.nodes[k - 1] : now.root, path[k]));
      now.path = path;
      made.self[now.nodes.at(-1) ?? now.root] += weight;
    }
    return { columns: columns(tree, strings, made), self: Float64Array.from(made.self), left };
  }

  /** Samples thread by thread, so that the nodes of one are together and in order. */
  function byThread({ thread }, count) {
    const start = new Int32Array(count + 1);
    for (const one of thread) start[one + 1]++;
    for (let k = 0; k < count; k++) start[k + 1] += start[k];
    const order = new Int32Array(thread.length);
    for (let i = 0; i < thread.length; i++) order[start[thread[i]]++] = i;
    return order;
  }

  function columns(tree, strings, { parent, from }) {
    const threadKind = tree.categories.indexOf("thread");
    const categories = threadKind < 0 ? [...tree.categories, "thread"] : tree.categories;
    const taken = (column, ofThread) =>
      column ? Int32Array.from(from, (node) => (node < 0 ? ofThread(-1 - node) : column[node])) : undefined;
    const none = strings.indexOf("");
    if (none < 0) strings.push("");
    const empty = none < 0 ? strings.length - 1 : none;
    return {
      strings,
      categories,
      unit: tree.unit,
      ordered: true,
      parent: Int32Array.from(parent),
      label: taken(tree.label, (thread) => tree.strings.length + thread),
      category: taken(tree.category, () => (threadKind < 0 ? categories.length - 1 : threadKind)),
      module: taken(tree.module, () => empty),
      file: taken(tree.file, () => empty),
      line: taken(tree.line, () => -1),
    };
  }

  pk.chronology = { create, MOST_NODES };
}
