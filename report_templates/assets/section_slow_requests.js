"use strict";
// Slow requests: the list, how they lie over time, and what one of them did.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;
  const MAX_POINTS = 3000;

  /** Reads the columns of one detail: rows `first[k]` up to `first[k + 1]`. */
  function spansOf({ spans, first, categories }, k) {
    const base = first[k];
    const string = (column, i) => (column[base + i] >= 0 ? spans.strings[column[base + i]] : "");
    return {
      length: first[k + 1] - base,
      name: (i) => pk.format.text(string(spans.name, i), 400),
      service: (i) => pk.format.text(string(spans.service, i), 200),
      category: (i) => categories[spans.category[base + i]],
      parent: (i) => spans.parent[base + i],
      start: (i) => spans.start_ns[base + i],
      duration: (i) => spans.duration_ns[base + i],
      self: (i) => spans.self_ns[base + i],
      error: (i) => spans.error[base + i] === 1,
      facts: (i) => facts(string(spans.text, i), string(spans.attributes, i)),
    };
  }

  function facts(statement, attributes) {
    const rows = statement ? [["Statement", statement]] : [];
    if (!attributes) return rows;
    let parsed;
    try {
      parsed = JSON.parse(attributes);
    } catch {
      return [...rows, ["Attributes", attributes]];
    }
    for (const [key, value] of Object.entries(parsed)) {
      rows.push([
        pk.format.text(key, 100),
        typeof value === "string" ? value : JSON.stringify(value),
      ]);
    }
    return rows;
  }

  /** `[[span, start, end], …]` of a detail's critical path. */
  function criticalOf({ critical }, k) {
    const segments = [];
    for (let i = critical.first[k]; i < critical.first[k + 1]; i++) {
      segments.push([critical.span[i], critical.start_ns[i], critical.end_ns[i]]);
    }
    return segments;
  }

  /** `[[label, duration, span], …]` of the code that samples saw in a detail. */
  function codeOf({ code, spans }, k) {
    const rows = [];
    for (let i = code.first[k]; i < code.first[k + 1]; i++) {
      rows.push([spans.strings[code.label[i]], code.duration_ns[i], code.span[i]]);
    }
    return rows;
  }

  /** Shows one request alone in every section, its flame graphs of spans and of code above all. */
  function only(request) {
    const title = "Flame graphs and all other sections of this request alone";
    return pk.dom.button("Show it alone", () => pk.filter.set({ request }), { title });
  }

  class Detail {
    constructor(element, requests, { details, traits, coarse }) {
      this.coarse = coarse;
      this.element = element;
      this.requests = requests;
      this.details = details;
      this.traits = traits;
    }

    clear() {
      this.waterfall = null;
      this.element.replaceChildren();
    }

    /** Shows detail `k`, which is of row `request`. */
    show(k, request) {
      const { details, requests } = this;
      const spans = spansOf(details, k);
      const box = el("div", { class: "waterfall-box" });
      const parts = [this.head(k, request), ...comparing(request), box];
      if (details.dropped?.[k] > 0) {
        const text = `${pk.format.plural(details.dropped[k], "shorter span")} of this request did not fit into the report; the capture has them.`;
        parts.push(el("p", { class: "note is-warning", text }));
      }
      parts.push(
        el("p", {
          class: "note",
          text: "The dark line under a bar is the critical path: the parts that set how long the request took. Click a span for its attributes.",
        }),
      );
      parts.push(...pk.requestFacts.create(this, k, request));
      const code = codeOf(details, k);
      if (code.length) parts.push(this.code(code, spans, requests.duration_ns[request]));
      this.element.replaceChildren(el("div", { class: "card" }, ...parts));
      this.waterfall = pk.waterfall.create(box, spans, criticalOf(details, k));
    }

    head(k, request) {
      const { details, requests } = this;
      const name = (column) =>
        column[request] >= 0 ? pk.format.text(requests.strings[column[request]], 300) : "";
      const title = el("h3", { class: "card-title", text: name(requests.endpoint) });
      const failed = requests.status[request] === 1;
      const hidden = details.hidden_error?.[k] && !failed;
      const badge = failed
        ? ["failed", "severity-high"]
        : hidden
          ? ["hides an error", "severity-medium"]
          : null;
      const rows = [
        ["Duration", pk.format.duration(requests.duration_ns[request])],
        [
          "Started",
          `${pk.format.duration(requests.start_ns[request])} into the capture, ${pk.format.clock(requests.start_ns[request])}`,
        ],
        ["Tool", name(requests.tool)],
        ["Service", name(requests.service)],
        ["Trace", details.trace?.[k] ?? ""],
        ["CPU then", details.cpu_ratio ? pk.format.percent(details.cpu_ratio[k]) : ""],
        ["Memory then", details.rss_bytes ? pk.format.size(details.rss_bytes[k]) : ""],
      ].filter(([, value]) => value && value !== pk.format.MISSING);
      const pairs = el("dl", { class: "pairs is-inline" });
      for (const [key, value] of rows)
        pairs.append(el("div", {}, el("dt", { text: key }), el("dd", { text: value })));
      const head = el("div", { class: "card-head" }, title);
      if (badge) head.append(el("span", { class: `badge ${badge[1]}`, text: badge[0] }));
      if (!this.coarse) head.append(only(request));
      return el("div", {}, head, pairs);
    }

    code(rows, spans, duration) {
      const box = el("div");
      const table = pk.table.create(box, {
        label: "Code that ran in this request",
        limit: 8,
        columns: [
          {
            key: "code",
            title: "Code that ran",
            wide: true,
            code: true,
            value: (i) => pk.format.text(rows[i][0], 400),
          },
          {
            key: "span",
            title: "During",
            width: "30ch",
            value: (i) => (rows[i][2] >= 0 ? spans.name(rows[i][2]) : ""),
          },
          {
            key: "time",
            title: "Time",
            unit: "ns",
            width: "14ch",
            value: (i) => rows[i][1],
            share: (i) => rows[i][1] / duration,
          },
        ],
        sort: { key: "time", descending: true },
      });
      table.update(rows.length);
      const said = "From stack samples taken on the request's own thread while it ran.";
      return el(
        "div",
        { class: "request-code" },
        el("h4", { text: "Code" }),
        box,
        el("p", { class: "note", text: said }),
      );
    }
  }

  /** Buttons that put one request on a side of the comparison; bins of requests are none. */
  function comparing(request) {
    if (pk.data.slow_requests.coarse || !pk.data.comparison) return [];
    const buttons = ["Compare: first", "Compare: second"].map((text, side) =>
      pk.dom.button(text, () => pk.compare?.set(side, `request:${request}`), {
        title: "Choose this request for the difference flame graphs of the section Comparison",
      }),
    );
    return [el("div", { class: "toolbar no-print" }, ...buttons)];
  }

  /** Every request as a point: when it started and how long it took. */
  class Scatter {
    constructor(element, requests, onopen) {
      this.requests = requests;
      this.onopen = onopen;
      this.plot = el("div", { role: "img", "aria-label": "Duration of the requests over time" });
      this.box = el("div", { class: "timechart" }, this.plot);
      const title = el("div", { class: "chart-title" }, el("h3", { text: "Duration over time" }));
      this.legend = el("span", { class: "legend" });
      title.append(this.legend);
      element.append(el("figure", {}, title, this.box));
      this.cover = pk.timeAxis.cover(this.box, (time) => [pk.timeline.heading(time), []]);
      this.rows = [];
    }

    /** Shows these requests, the slowest first; of very many only the slowest as points. */
    update(rows) {
      this.rows = rows;
      const points = rows.slice(0, MAX_POINTS);
      const left = rows.length - points.length;
      const items = [
        ["--line-1", "succeeded"],
        ["--high", "failed"],
      ].map(([colour, text]) =>
        el(
          "span",
          { class: "legend-item" },
          el("span", { class: "swatch", style: { background: `var(${colour})` } }),
          text,
        ),
      );
      const remark =
        left > 0
          ? `the slowest ${pk.format.number(points.length)} of ${pk.format.number(rows.length)}`
          : "";
      this.legend.replaceChildren(...items, remark);
      this.points = points;
      if (!this.kept) pk.timeAxis.keepDrawn(this.box, (width) => this.draw(width));
      else this.draw(this.width);
      this.kept = true;
    }

    draw(width) {
      const HEIGHT = 150;
      const { start_ns: start, duration_ns: duration, status } = this.requests;
      this.width = width;
      this.cover.place(width, 6, HEIGHT - 26);
      const trace = (rows, colour, symbol) => ({
        type: "scatter",
        mode: "markers",
        x: rows.map((i) => start[i]),
        y: rows.map((i) => Math.max(duration[i], 1)),
        marker: {
          color: pk.theme.colour(colour),
          size: 4.5,
          opacity: 0.7,
          symbol,
          line: { width: 0 },
        },
        hoverinfo: "skip",
      });
      const values = this.points.map((i) => Math.max(duration[i], 1));
      const low = Math.min(...values);
      const high = Math.max(...values);
      const layout = {
        ...pk.timeAxis.layout(width, HEIGHT),
        xaxis: pk.timeAxis.axis(width),
        yaxis: logAxis(low, high),
      };
      const failed = this.points.filter((i) => status[i] === 1);
      const succeeded = this.points.filter((i) => status[i] !== 1);
      const traces = [trace(succeeded, "--line-1", "circle"), trace(failed, "--high", "x")];
      return Plotly.react(this.plot, traces, layout, { staticPlot: true });
    }
  }

  function logAxis(low, high) {
    const from = Math.log10(Number.isFinite(low) ? low : 1e6) - 0.1;
    const to = Math.log10(Number.isFinite(high) ? high : 1e9) + 0.1;
    const powers = [];
    for (let power = Math.ceil(from); power <= to; power++) powers.push(10 ** power);
    const at = powers.length > 1 ? powers : [10 ** from, 10 ** to];
    return {
      type: "log",
      range: [from, Math.max(to, from + 0.2)],
      fixedrange: true,
      tickvals: at,
      ticktext: at.map((value) => pk.format.plotly(pk.format.duration(value))),
      gridcolor: pk.theme.colour("--line"),
      zeroline: false,
      ticklabelstandoff: 6,
    };
  }

  /**
   * Of very many requests the page has bins: then the list is of those with details, one row each.
   * What the filter looks at is their bin's, as everywhere in the page; the duration is their own.
   */
  function binnedDetails({ requests, details }) {
    const bin = details.request;
    const of = (column) => Array.from(bin, (request) => column[request]);
    const duration = Array.from(bin, (_, k) => rootDuration(details, k));
    const { strings, start_ns, endpoint, tool, service, status } = requests;
    return {
      strings,
      start_ns: of(start_ns),
      duration_ns: duration,
      endpoint: of(endpoint),
      tool: of(tool),
      service: of(service),
      status: of(status),
    };
  }

  function rootDuration({ first, spans }, k) {
    for (let i = first[k]; i < first[k + 1]; i++) {
      if (spans.parent[i] < 0) return spans.duration_ns[i];
    }
    return NaN;
  }

  pk.section("slow_requests", (root, data) => {
    const { details } = data;
    const requests = data.coarse ? binnedDetails(data) : data.requests;
    const detailOf = data.coarse
      ? new Map(Array.from(details.request, (_, k) => [k, k]))
      : new Map(Array.from(details.request, (request, k) => [request, k]));
    const slot = root.querySelector("[data-slot=list]");
    const detail = new Detail(root.querySelector("[data-slot=detail]"), requests, data);
    const text = (column) => (i) =>
      column[at(i)] >= 0 ? pk.format.text(requests.strings[column[at(i)]], 300) : "";
    let rows = [];
    const at = (i) => rows[i];
    const charts = el("div");
    const lists = el("div");
    const groups = el("div", { class: "chart-stack" });
    slot.replaceChildren(groups, charts, lists);
    const threshold = pk.slowGroups.create(groups, data.requests, refresh);
    const scatter = new Scatter(charts, requests);
    const tools = requests.tool.some((tool) => tool >= 0);
    const services = new Set(requests.service).size > 1;
    let slowest = 0;
    const table = pk.table.create(lists, {
      label: "Requests",
      search: "Search requests",
      limit: 12,
      empty: "No request passes the filter.",
      sort: { key: "duration", descending: true },
      columns: [
        {
          key: "duration",
          title: "Duration",
          unit: "ns",
          width: "15ch",
          value: (i) => requests.duration_ns[at(i)],
          share: (i) => requests.duration_ns[at(i)] / slowest,
        },
        { key: "endpoint", title: "Endpoint", wide: true, value: text(requests.endpoint) },
        ...(tools
          ? [{ key: "tool", title: "Tool", width: "22ch", value: text(requests.tool) }]
          : []),
        ...(services
          ? [{ key: "service", title: "Service", width: "18ch", value: text(requests.service) }]
          : []),
        {
          key: "status",
          title: "Status",
          width: "10ch",
          value: (i) => (requests.status[at(i)] === 1 ? "failed" : "ok"),
        },
        {
          key: "start",
          title: "After start",
          unit: "ns",
          width: "14ch",
          value: (i) => requests.start_ns[at(i)],
        },
        {
          key: "detail",
          title: "Waterfall",
          width: "11ch",
          value: (i) => (detailOf.has(at(i)) ? "yes" : "no"),
        },
      ],
      onopen: (i) => open(at(i)),
    });

    function open(request) {
      pk.filter.setView("request", request);
      const k = detailOf.get(request);
      if (k === undefined) {
        detail.clear();
        const said =
          "This report carries the spans of the slowest requests only. The capture has those of all: perfkit report with --since, --until or --endpoint makes a report of fewer.";
        detail.element.append(el("p", { class: "empty", text: said }));
      } else detail.show(k, request);
    }

    pk.theme.on(() => detail.waterfall?.draw());
    let linked = pk.filter.view("request");
    return {
      update() {
        refresh();
        if (linked !== null && passing(requests).includes(Number(linked))) open(Number(linked));
        linked = null;
      },
    };

    function passing(columns) {
      const mask = pk.filter.mask(columns);
      const found = [];
      for (let i = 0; i < mask.length; i++) if (mask[i]) found.push(i);
      return found;
    }

    /** Shows what passes the filter, and in the list what is slow of it. */
    function refresh() {
      const all = passing(requests);
      // Of very many requests the list has those with details; what is slow is told from all.
      threshold.update(data.coarse ? passing(data.requests) : all);
      const limit = threshold.limit();
      const longest = (a, b) => requests.duration_ns[b] - requests.duration_ns[a];
      rows = all.filter((i) => requests.duration_ns[i] >= limit).sort(longest);
      slowest = rows.length ? requests.duration_ns[rows[0]] : 1;
      table.update(rows.length);
      scatter.update(all.sort(longest));
    }
  });
}
