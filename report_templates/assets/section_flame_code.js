"use strict";
// Code flame graph: sums the samples of the chosen threads, state, time and requests.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;
  const STATES = [["running", "Running", 1], ["unknown", "Perhaps running", 0], ["woken", "Woke up", 3], ["idle", "Waiting", 2]];

  /** Time of each state over all samples, to offer only the states that occur. */
  function byState(samples) {
    const sums = [0, 0, 0, 0];
    for (let i = 0; i < samples.state.length; i++) sums[samples.state[i]] += samples.duration[i];
    return sums;
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
      library: ["library", "stdlib", "native"].filter((kind) => tree.categories.includes(kind)),
    });
    slot.after(remark);

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

    function update() {
      const values = pk.sums.code(data, chosen, pk.populations.choose("all", requests, { timed: true }));
      const total = pk.tree.propagate(view.source, values.self);
      view.update({ total, self: values.self, samples: values.samples });
      say(values);
    }

    function say(values) {
      const amount = (value) => pk.format.value(value, tree.unit);
      let shown = 0;
      for (const value of values.self) shown += value;
      const parts = [`Shown: ${amount(shown)} of ${amount(values.whole)} sampled.`];
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
