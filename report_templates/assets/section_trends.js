"use strict";
// Trends and spikes: a chart of each series, those of the chosen endpoints only.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;

  pk.section("trends", (root, data) => {
    const slot = root.querySelector("[data-slot=charts]");
    if (!slot || !data.charts) return {};
    const shown = el("div", { class: "chart-stack" });
    const more = el("div", { class: "chart-stack", hidden: true });
    slot.append(shown);
    pk.timeline.lanes(shown);
    const figures = data.charts.map((chart, i) => ({
      chart,
      figure: pk.timeline.chart(i < data.first ? shown : more, chart, { last: true }),
    }));
    const left = data.charts.length - data.first;
    if (left > 0) slot.append(opener(more, left), more);
    return {
      update({ endpoints }) {
        for (const { chart, figure } of figures)
          figure.hidden = endpoints.length > 0 && chart.endpoint && !endpoints.includes(chart.endpoint);
      },
    };
  });

  function opener(more, left) {
    const label = `Show ${pk.format.plural(left, "more chart")}`;
    const button = pk.dom.button(label, () => {
      more.hidden = !more.hidden;
      button.setAttribute("aria-expanded", String(!more.hidden));
      button.textContent = more.hidden ? label : "Show fewer charts";
    });
    button.setAttribute("aria-expanded", "false");
    return button;
  }
}
