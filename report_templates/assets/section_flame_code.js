"use strict";
// Code flame graph: sums the samples of the chosen threads, state, time and requests.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;
  const STATES = [["running", "Running", 1], ["unknown", "Perhaps running", 0], ["woken", "Woke up", 3], ["idle", "Waiting", 2]];

  /** Whether the controls of this section leave a sample in. */
  const chosenBy = (samples, { thread, state }, i) =>
    (thread < 0 || samples.thread[i] === thread) && (state < 0 || samples.state[i] === state);

  /** Time in other states of what is chosen otherwise: where to look when little of it is shown. */
  function elsewhere(data, { thread, state }, requests) {
    if (state < 0) return 0;
    const keeps = keeper(data, { thread, state: -1 }, requests);
    let sum = 0;
    for (let i = 0; i < data.samples.stack.length; i++)
      if (data.samples.state[i] !== state && keeps(i)) sum += data.samples.duration[i];
    return sum;
  }

  /** The same for the heatmap, which shows all of the time: of the filter, the requests count. */
  function keeper({ samples }, chosen, requests) {
    const passed = pk.filter.choosesRequests() && requests ? pk.filter.mask(requests) : null;
    return (i) =>
      chosenBy(samples, chosen, i) &&
      (!passed || (samples.entry[i] >= 0 && passed[samples.entry[i]] === 1));
  }

  const libraryOf = ({ categories }) =>
    ["library", "stdlib", "native"].filter((kind) => categories.includes(kind));

  /** Time of each state over all samples, to offer only the states that occur. */
  function byState(samples) {
    const sums = [0, 0, 0, 0];
    for (let i = 0; i < samples.state.length; i++) sums[samples.state[i]] += samples.duration[i];
    return sums;
  }

  /** The other view of the section: threads in the order of time. Made when it is first asked for. */
  class TimeOrder {
    constructor(data, merged) {
      this.data = data;
      this.merged = merged;
      this.element = el("div", { hidden: true });
      merged.after(this.element);
    }

    show(shown) {
      this.element.hidden = !shown;
      this.merged.hidden = shown;
    }

    update(chosen, population) {
      if (this.element.hidden) return;
      const { data } = this;
      const weights = pk.sums.weights(data, chosen, population);
      const made = pk.chronology.create(data.tree, data.samples, data.threads, (i) => weights[i]);
      const parts = [
        "From left to right in the order of time, thread by thread. Time in other states takes no room; a frame goes on for as long as the samples shown have it.",
      ];
      if (made.left > 0) {
        const rest = pk.format.value(made.left, data.tree.unit);
        parts.push(`Left out: the last ${rest}. Choose less time, or a thread, to see all.`);
      }
      const view = pk.flame.create(this.element, made.columns, {
        name: "code-time",
        whole: "all threads",
        order: "time",
        library: libraryOf(data.tree),
        note: parts.join(" "),
      });
      view.update({ self: made.self, total: pk.tree.propagate(view.source, made.self) });
    }
  }

  pk.section("flame_code", (root, data) => {
    const { tree, samples, threads } = data;
    const requests = pk.data.slow_requests?.requests;
    const remark = el("p", { class: "note", "aria-live": "polite" });
    const states = byState(samples);
    const known = STATES.filter(([, , code]) => states[code] > 0);
    // What works is what is asked for first; where nobody knows, what is not seen to wait.
    const [first] = known.length > 1 ? known : [["all", "All", -1]];
    const chosen = { thread: -1, state: first[2] };
    const slot = root.querySelector("[data-slot=flame]");
    const controls = root.querySelector("[data-slot=controls]");
    const view = pk.flame.create(slot, tree, {
      name: "code",
      whole: "all code",
      library: libraryOf(tree),
    });
    slot.after(remark);
    const timed = samples.start_ns.some((start) => !Number.isNaN(start));
    const subsecond = timed ? new pk.flame.Subsecond(data, pk.data.page.duration_ns) : null;
    if (subsecond) slot.before(subsecond.element);

    if (known.length > 1) {
      const choices = [...known.map(([key, text]) => [key, text]), ["all", "All"]];
      controls.append(
        pk.dom.choice("State of the thread", choices, first[0], (key) => {
          chosen.state = STATES.find(([name]) => name === key)?.[2] ?? -1;
          update();
        }),
      );
    }
    if (threads.length > 1) {
      const choices = [["-1", `All ${pk.format.plural(threads.length, "thread")}`]];
      threads.forEach((name, i) => choices.push([String(i), pk.format.text(name, 60)]));
      controls.append(
        pk.dom.select("Thread", choices, "-1", (key) => {
          chosen.thread = Number(key);
          update();
        }),
      );
    }

    let inTime = null;
    if (timed) {
      inTime = new TimeOrder(data, slot);
      controls.append(
        pk.dom.choice("Order", [["merged", "Merged"], ["time", "In time order"]], "merged", (order) => {
          inTime.show(order === "time");
          update();
        }),
      );
    }

    function update() {
      const population = pk.populations.choose("all", requests, { timed: true });
      const values = pk.sums.code(data, chosen, population);
      const total = pk.tree.propagate(view.source, values.self);
      inTime?.update(chosen, population);
      subsecond?.update(keeper(data, chosen, requests));
      view.update({ total, self: values.self, samples: values.samples });
      say(values);
    }

    function say(values) {
      const amount = (value) => pk.format.value(value, tree.unit);
      let shown = 0;
      for (const value of values.self) shown += value;
      const parts = [`Shown: ${amount(shown)} of ${amount(values.whole)} sampled.`];
      if (!shown && values.whole > 0) {
        const rest = elsewhere(data, chosen, requests);
        if (rest > 0) parts.push(`Nothing of it was in this state; ${amount(rest)} in the others.`);
      }
      if (states[3] > 0 && chosen.state === 1) {
        const share = pk.format.percent(states[3] / (states[1] + states[3]));
        parts.push(
          `Set apart: ${amount(states[3])}, ${share} of running time, in which threads that mostly wait woke up at their wait.`,
        );
      }
      if (values.ambiguous > 0) parts.push(`Left out: ${amount(values.ambiguous)} that fit several requests.`);
      if (values.timeless > 0) parts.push("Left out: samples without a time.");
      if (!requests && pk.filter.choosesRequests()) parts.push("There are no requests to filter by.");
      remark.textContent = parts.join(" ");
    }

    return { update };
  });
}
