"use strict";
// What is told of one slow request beside its waterfall: how it differs from typical requests of its
// endpoint, what slow ones share, its queries and its events.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;
  // As in perfkit/analysis/comparison/slow_traits.py.
  const TYPICAL_UP_TO = 0.75;
  const LEAST_TYPICAL = 5;
  const MOST = 8;

  const block = (title, body, note) =>
    el(
      "div",
      { class: "request-code" },
      el("h4", { text: title }),
      body,
      note ? el("p", { class: "note", text: note }) : null,
    );

  /** A small table: columns of [title, isNumber], rows of texts or nodes. */
  function table(label, columns, rows) {
    const head = el("tr", {}, ...columns.map(([title, number]) => el("th", { scope: "col", class: number ? "num" : null, text: title })));
    const body = rows.map((cells) =>
      el("tr", {}, ...cells.map((cell, i) => el("td", { class: columns[i][1] ? "num" : "wrap" }, cell))),
    );
    return el(
      "div",
      { class: "table-wrap is-tall", tabindex: 0, role: "group", "aria-label": label },
      el("table", { class: "table" }, el("thead", {}, head), el("tbody", {}, ...body)),
    );
  }

  /** Requests of the same endpoint and service that are no slower than three quarters of them. */
  function typical(requests, request) {
    const same = [];
    for (let i = 0; i < requests.start_ns.length; i++) {
      if (requests.endpoint[i] === requests.endpoint[request] && requests.service[i] === requests.service[request])
        same.push(i);
    }
    const durations = same.map((i) => requests.duration_ns[i]);
    const [limit] = pk.liveTable.quantiles(durations, null, [TYPICAL_UP_TO]);
    return same.filter((i) => i !== request && requests.duration_ns[i] <= limit);
  }

  /** Own time by operation, of this request and of typical ones on average; null if not known. */
  function compared(requests, request) {
    const flame = pk.data.flame_requests;
    if (!flame || flame.coarse || flame.groups.start_ns.length !== requests.start_ns.length) return null;
    const others = typical(requests, request);
    if (others.length < LEAST_TYPICAL) return null;
    const role = new Int8Array(requests.start_ns.length);
    for (const other of others) role[other] = 1;
    role[request] = 2;
    const { node, group, self_ns: own, gap_ns: gap, count } = flame.cells;
    const found = new Map();
    for (let i = 0; i < node.length; i++) {
      const mine = role[group[i]];
      if (!mine) continue;
      const label = flame.tree.strings[flame.tree.label[node[i]]];
      if (!found.has(label)) found.set(label, { label, here: 0, usual: 0, calls: 0, usualCalls: 0 });
      const row = found.get(label);
      const time = own[i] + gap[i];
      if (mine === 2) ((row.here += time), (row.calls += count[i]));
      else ((row.usual += time / others.length), (row.usualCalls += count[i] / others.length));
    }
    if (!found.size) return null;
    const rows = [...found.values()].sort((x, y) => y.here - y.usual - (x.here - x.usual));
    const least = Math.max((rows[0].here - rows[0].usual) / 100, 0);
    const more = rows.filter(({ here, usual }) => here - usual > least);
    return { rows: more.slice(0, MOST), others: others.length };
  }

  function difference(requests, request) {
    const found = compared(requests, request);
    if (!found?.rows.length) return null;
    const { duration, number } = pk.format;
    const columns = [["Operation"], ["Here", true], ["Typical", true], ["More", true], ["Calls, typical", true]];
    const rows = found.rows.map(({ label, here, usual, calls, usualCalls }) => [
      pk.dom.long(label, 160),
      duration(here),
      duration(usual),
      el("span", { class: "strong", text: duration(here - usual) }),
      `${number(Math.round(calls))}, ${number(Number(usualCalls.toPrecision(2)))}`,
    ]);
    const note = `Own time, with network and queue, against the mean of ${number(found.others)} typical requests of this endpoint: those up to its 75th percentile.`;
    return block("More time than in typical requests", table("More time than in typical requests", columns, rows), note);
  }

  function traits(all, requests, request) {
    const name = (column) => (requests[column][request] >= 0 ? requests.strings[requests[column][request]] : null);
    const mine = (all ?? []).filter(({ service, endpoint }) => service === name("service") && endpoint === name("endpoint"));
    if (!mine.length) return null;
    const { percent, number } = pk.format;
    const columns = [["Trait"], ["Of slow", true], ["Of typical", true], ["Lift", true]];
    const rows = mine.map((trait) => [
      pk.dom.long(trait.what, 160),
      percent(trait.slow_ratio),
      percent(trait.typical_ratio),
      `${number(Number(trait.lift.toPrecision(2)))} ×`,
    ]);
    const note = "Of the endpoint's slowest twentieth against its typical requests (Fisher's exact test, corrected). It says what goes together, not what causes what.";
    return block("What slow requests of this endpoint share", table("What slow requests share", columns, rows), note);
  }

  // Values are shown when asked for only, so a statement is listed without them.
  const LITERAL = /'(?:[^']|'')*'|(?<![\w$@:?.])-?\d+(?:\.\d+)?\b/g;

  /** The statements of a request, with how often and how long each ran. */
  function queries({ spans, first }, k) {
    const found = new Map();
    for (let i = first[k]; i < first[k + 1]; i++) {
      if (spans.text[i] < 0) continue;
      const text = spans.strings[spans.text[i]];
      const bare = text.replace(LITERAL, "?");
      const row = found.get(bare) ?? { calls: 0, time: 0, text };
      row.calls += 1;
      row.time += spans.duration_ns[i];
      found.set(bare, row);
    }
    if (!found.size) return null;
    const rows = [...found]
      .sort(([, x], [, y]) => y.time - x.time)
      .slice(0, 3 * MOST)
      .map(([bare, { calls, time, text }]) => [
        el("div", { class: "code" }, pk.dom.long(bare, 200), bare === text ? null : withValues(text)),
        pk.format.number(calls),
        pk.format.duration(time),
      ]);
    return block("Queries", table("Queries of this request", [["Statement"], ["Calls", true], ["Time", true]], rows));
  }

  const withValues = (text) =>
    el(
      "details",
      { class: "more" },
      el("summary", { text: "Show one with its values" }),
      el("pre", { class: "code", tabindex: 0, text: pk.format.text(text) }),
    );

  function events({ events: all, spans, first: firstSpan }, k) {
    if (!all || all.first[k] === all.first[k + 1]) return null;
    const text = (column, i) => (column[i] >= 0 ? spans.strings[column[i]] : "");
    const rows = [];
    for (let i = all.first[k]; i < all.first[k + 1]; i++) {
      rows.push([
        pk.format.duration(all.at_ns[i]),
        pk.format.text(text(all.name, i), 100),
        pk.format.text(text(spans.name, firstSpan[k] + all.span[i]), 100),
        pk.dom.long(said(text(all.attributes, i)), 200),
      ]);
    }
    return block("Events", table("Events of this request", [["After", true], ["Event"], ["In"], ["What it says"]], rows));
  }

  /** Attributes of an event as `name: value` lines. */
  function said(json) {
    try {
      const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));
      return Object.entries(JSON.parse(json)).map(([key, value]) => `${key}: ${shown(value)}`).join("\n");
    } catch {
      return json;
    }
  }

  /** What is told of detail `k`, which is of row `request`: elements, the most telling first. */
  function create({ details, requests, traits: all }, k, request) {
    return [
      difference(requests, request),
      traits(all, requests, request),
      queries(details, k),
      events(details, k),
    ].filter(Boolean);
  }

  pk.requestFacts = { create };
}
