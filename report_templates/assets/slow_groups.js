"use strict";
// Which requests count as slow: a threshold, how many are beyond it over time, and by what they have
// in common.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;
  const BUCKETS = 80;
  const LEVELS = [0, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999];
  const DEFAULT = LEVELS.indexOf(0.95);

  const weightOf = (requests, i) => (requests.weight ? requests.weight[i] : 1);

  /** `onchange()` is called when the threshold moves. Returns {update(rows), limit()}. */
  function create(parent, requests, onchange) {
    let level = Number(pk.filter.view("slow") ?? DEFAULT);
    if (!(level >= 0 && level < LEVELS.length)) level = DEFAULT;
    let limits = [];
    let group = "endpoint";
    const said = el("output", { "aria-live": "polite" });
    const slider = el("input", {
      type: "range",
      min: 0,
      max: LEVELS.length - 1,
      value: level,
      "aria-label": "Which requests count as slow",
      on: { input: () => ((level = slider.valueAsNumber), pk.filter.setView("slow", level === DEFAULT ? null : level), onchange()) },
    });
    const groups = el("div", { class: "table-wrap is-tall", tabindex: 0, role: "group", "aria-label": "Slow requests by group" });
    const by = [["endpoint", "By endpoint"], ...(requests.tool.some((tool) => tool >= 0) ? [["tool", "By tool"]] : []), ["service", "By service"]];
    const choice = pk.dom.choice("Group slow requests", by, group, (chosen) => ((group = chosen), onchange()));
    const trend = el("div");
    parent.append(
      el("div", { class: "what-if-row" }, el("span", { class: "what-if-label", text: "Slow is longer than" }), slider, said),
      trend,
      el("div", { class: "chart-title" }, el("h3", { text: "Where they are" }), choice),
      groups,
    );
    let chart = null;

    const threshold = () => (LEVELS[level] > 0 ? limits[level] : 0);
    const isSlow = (i) => requests.duration_ns[i] >= threshold();

    function perBucket(rows) {
      const width = Math.max(pk.data.page.duration_ns / BUCKETS, 1);
      const all = new Float64Array(BUCKETS);
      const slow = new Float64Array(BUCKETS);
      for (const i of rows) {
        const at = Math.min(Math.max(Math.floor(requests.start_ns[i] / width), 0), BUCKETS - 1);
        all[at] += weightOf(requests, i);
        if (isSlow(i)) slow[at] += weightOf(requests, i);
      }
      return [slow.map((count, i) => (all[i] > 0 ? count / all[i] : NaN))];
    }

    function grouped(rows) {
      const found = new Map();
      for (const i of rows) {
        const key = requests[group][i];
        if (!found.has(key)) found.set(key, { durations: [], weights: [], slow: 0, all: 0 });
        const one = found.get(key);
        one.durations.push(requests.duration_ns[i]);
        one.weights.push(weightOf(requests, i));
        one.all += weightOf(requests, i);
        if (isSlow(i)) one.slow += weightOf(requests, i);
      }
      return [...found].filter(([, { slow }]) => slow > 0).sort(([, x], [, y]) => y.slow - x.slow);
    }

    function line([key, { durations, weights, slow, all }]) {
      const name = key >= 0 ? requests.strings[key] : null;
      const [p95] = pk.liveTable.quantiles(durations, weights, [0.95]);
      const list = { endpoint: "endpoints", tool: "tools", service: "services" }[group];
      const only = name === null ? pk.format.MISSING : el("button", {
        class: "link",
        type: "button",
        text: pk.format.text(name, 120),
        on: { click: () => pk.filter.set({ [list]: [name] }) },
      });
      const cells = [pk.format.number(Math.round(slow)), pk.format.percent(slow / all), pk.format.duration(p95), pk.format.duration(durations.reduce((x, y) => Math.max(x, y), 0))];
      return el("tr", {}, el("td", { class: "wrap" }, only), ...cells.map((text) => el("td", { class: "num", text })));
    }

    function update(rows) {
      limits = pk.liveTable.quantiles(rows.map((i) => requests.duration_ns[i]), requests.weight ? rows.map((i) => requests.weight[i]) : null, LEVELS);
      let slow = 0;
      let all = 0;
      for (const i of rows) {
        all += weightOf(requests, i);
        if (isSlow(i)) slow += weightOf(requests, i);
      }
      const rank = LEVELS[level] > 0 ? ` (p${Number((LEVELS[level] * 100).toPrecision(3))})` : "";
      const text = rows.length ? `${pk.format.duration(threshold())}${rank}: ${pk.format.number(Math.round(slow))} of ${pk.format.plural(Math.round(all), "request")}` : "no request";
      said.textContent = text;
      slider.setAttribute("aria-valuetext", text);
      const head = ["Group", "Slow", "Of its requests", "p95", "Longest"];
      groups.replaceChildren(
        el("table", { class: "table" },
          el("thead", {}, el("tr", {}, ...head.map((title, i) => el("th", { scope: "col", class: i ? "num" : null, text: title })))),
          el("tbody", {}, ...grouped(rows).slice(0, 100).map(line))),
      );
      const values = perBucket(rows);
      if (chart) chart.redraw(values);
      else {
        const width = Math.max(pk.data.page.duration_ns / BUCKETS, 1);
        const series = [{ title: "share of requests that were slow", unit: "ratio", values: values[0] }];
        chart = pk.timeline.chart(trend, { title: "Slow requests over time", heading: "h3", start_ns: 0, bucket_ns: width, series }, { last: true });
      }
    }

    return { update, limit: threshold };
  }

  pk.slowGroups = { create };
}
