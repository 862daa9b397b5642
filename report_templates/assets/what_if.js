"use strict";
// What if: a slider over replayed latencies. Between two replayed steps it interpolates.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;

  /** `replays`: {steps, endpoints, measures, values: [column a subject]} of bottlenecks. */
  class Replays {
    constructor({ steps, endpoints, measures, values }) {
      Object.assign(this, { endpoints, measures, values });
      this.shares = [0, ...steps];
    }

    /** Latencies of a group by measure when a share of the subject's time is taken away. */
    at(subject, share, group) {
      const { shares } = this;
      const above = Math.max(
        shares.findIndex((step) => step >= share - 1e-9),
        1,
      );
      const [low, high] = [shares[above - 1], shares[above]];
      const part = (share - low) / (high - low);
      return this.measures.map((_, k) => {
        const [a, b] = [above - 1, above].map((step) => this.value(subject, step, group, k));
        return a + (b - a) * part;
      });
    }

    value(subject, step, group, k) {
      const { endpoints, measures, values } = this;
      return values[subject][(step * endpoints.length + group) * measures.length + k];
    }

    exact = (share) => this.shares.some((step) => Math.abs(step - share) < 1e-9);

    /** The group that the filter chooses: 0 for all, null where the report has no replay of it. */
    chosen({ endpoints, tools, services, status, min_duration_ns: least }) {
      if (tools.length || services.length || status || least) return null;
      if (!endpoints.length) return 0;
      const group = this.endpoints.indexOf(endpoints[0]);
      return endpoints.length === 1 && group > 0 ? group : null;
    }
  }

  /** A slider in `root` (what the template calls `.what-if`). Returns {update(filterState)}. */
  function create(root, replays, name) {
    const subject = Number(root.dataset.whatIf);
    let group = 0;
    let share = 0.5;
    const output = el("output", { class: "what-if-said", "aria-live": "polite" });
    const slider = el("input", {
      type: "range",
      min: 0,
      max: 100,
      step: 5,
      value: 50,
      "aria-label": `What if ${name} took less time`,
      on: { input: () => ((share = slider.valueAsNumber / 100), say()) },
    });
    const label = el("span", { class: "what-if-label" });
    const endpoints = el("div", { class: "what-if-endpoints" });
    root.prepend(
      el("div", { class: "what-if-row" }, label, slider, output),
      endpoints,
    );

    function say() {
      const percent = pk.format.percent(share);
      label.textContent = `If this took ${percent} less time`;
      slider.setAttribute("aria-valuetext", `${percent} less`);
      const now = replays.at(subject, 0, group);
      const then = replays.at(subject, share, group);
      const of = group ? ` of ${pk.format.text(replays.endpoints[group], 80)}` : " of all requests";
      const k = replays.measures.indexOf("p95");
      output.replaceChildren(
        el("b", { text: `p95${of} ${change(now[k], then[k])}` }),
        ` · p50 ${change(now[k - 1], then[k - 1])} · p99 ${change(now[k + 1], then[k + 1])}`,
        replays.exact(share) ? "" : el("span", { class: "muted", text: " (between two replays)" }),
      );
      endpoints.replaceChildren(...(group ? [] : touched()));
    }

    /** The endpoints whose p95 this changes most, as one line of text each. */
    function touched() {
      const k = replays.measures.indexOf("p95");
      return replays.endpoints
        .map((endpoint, at) => [endpoint, replays.at(subject, 0, at)[k], replays.at(subject, share, at)[k]])
        .slice(1)
        .filter(([, now, then]) => now > 0 && then < 0.99 * now)
        .sort((x, y) => y[1] - y[2] - (x[1] - x[2]))
        .slice(0, 3)
        .map(([endpoint, now, then]) =>
          el("div", { class: "muted", text: `p95 of ${pk.format.text(endpoint, 80)} ${change(now, then)}` }),
        );
    }

    return {
      update(state) {
        const chosen = replays.chosen(state);
        group = chosen ?? 0;
        say();
        if (chosen === null)
          output.append(el("span", { class: "muted", text: " (not only those of the filter)" }));
      },
    };
  }

  function change(now, then) {
    const text = `${pk.format.duration(now)} → ${pk.format.duration(then)}`;
    const less = now > 0 ? 1 - then / now : 0;
    return less > 0.0005 ? `${text} (−${pk.format.percent(less)})` : text;
  }

  pk.whatIf = { Replays, create };
}
