"use strict";
// Populations that can be compared: what passes the filter, a part of it, a kept filter, one request.
// A population is named by a text key, so that the URL fragment can hold it.
{
  const pk = (window.perfkit ??= {});
  const SLOW = 0.95;
  const TYPICAL = 0.75;
  const FEWEST = 20; // as in perfkit/analysis/comparison/contrast.py
  const MOST_NAMES = 40;

  const split = (key) => {
    const colon = key.indexOf(":");
    return colon < 0 ? [key, ""] : [key.slice(0, colon), key.slice(colon + 1)];
  };

  /** A kept filter from its key; null when the fragment holds none. */
  function kept(text) {
    try {
      const state = JSON.parse(text);
      return state !== null && typeof state === "object" ? pk.filter.complete(state) : null;
    } catch {
      return null;
    }
  }

  const keyOfFilter = () => `filter:${JSON.stringify(pk.filter.chosen())}`;

  /** `[[key, title], …]` of what can be chosen; `requests` are columns as in pk.filter.mask. */
  function choices(requests, { baseline = null, extra = [] } = {}) {
    const { endpoints, tools, services } = pk.data.page;
    const list = [["all", "All that pass the filter"]];
    if (baseline) list.push(["baseline", `Baseline: ${pk.format.text(baseline, 60)}`]);
    if (requests?.start_ns.length) {
      list.push(["slow", "Slow requests (beyond their endpoint's p95)"]);
      list.push(["typical", "Typical requests (up to their endpoint's p75)"]);
      if (requests.status.includes(1)) list.push(["failed", "Failed requests"]);
    }
    list.push(["early", "First half of the time"], ["late", "Second half of the time"]);
    if (requests?.start_ns.length) {
      for (const [kind, names] of Object.entries({ endpoint: endpoints, tool: tools, service: services })) {
        if (names.length < (kind === "tool" ? 1 : 2)) continue;
        for (const name of names.slice(0, MOST_NAMES)) list.push([`${kind}:${name}`, title(`${kind}:${name}`)]);
      }
    }
    for (const key of extra) {
      if (key && !list.some(([known]) => known === key)) list.push([key, title(key)]);
    }
    return list;
  }

  /** What a population is called. */
  function title(key, requests = pk.data.slow_requests?.requests) {
    const [kind, name] = split(key);
    const words = {
      all: "all",
      baseline: "baseline",
      slow: "slow",
      typical: "typical",
      failed: "failed",
      early: "first half",
      late: "second half",
    };
    if (Object.hasOwn(words, key)) return words[key];
    if (kind === "filter") return `Kept: ${describe(kept(name) ?? {})}`;
    if (kind === "request") {
      const at = Number(name);
      const took = requests && at < requests.duration_ns.length ? requests.duration_ns[at] : NaN;
      return `Request ${pk.format.number(at + 1)} (${pk.format.duration(took)})`;
    }
    return `${kind[0].toUpperCase()}${kind.slice(1)} ${pk.format.text(name, 60)}`;
  }

  function describe(state) {
    const parts = ["endpoints", "tools", "services"].flatMap((list) => state[list] ?? []);
    if (state.status) parts.push(state.status === "error" ? "failed" : "ok");
    if (state.from_ns !== null || state.to_ns !== null) {
      const end = (ns, other) => (ns === null || ns === undefined ? other : pk.format.duration(ns));
      parts.push(`${end(state.from_ns, "start")} to ${end(state.to_ns, "end")}`);
    }
    if (state.min_duration_ns > 0) parts.push(`from ${pk.format.duration(state.min_duration_ns)}`);
    return pk.format.text(parts.join(", ") || "everything", 80);
  }

  /** Half of the chosen time range. */
  function half(state, late) {
    const from = state.from_ns ?? 0;
    const to = state.to_ns ?? pk.data.page.duration_ns;
    const middle = (from + to) / 2;
    return late ? { ...state, from_ns: middle } : { ...state, to_ns: middle };
  }

  /** The filter that a population is; null when it is more than a filter can say. */
  function filterOf(key) {
    const state = pk.filter.state;
    const [kind, name] = split(key);
    if (key === "failed") return { ...state, status: "error" };
    if (key === "early" || key === "late") return half(state, key === "late");
    if (kind === "filter") return kept(name) ?? state;
    const list = { endpoint: "endpoints", tool: "tools", service: "services" }[kind];
    return list ? { ...state, [list]: [name] } : state;
  }

  /**
   * A population of request columns: `passed` is a byte a row, `single` whether it is one request.
   * Samples have a time of their own: for them (`timed`) a population that is no choice of requests
   * is the time range `from` … `to`, and `passed` is null.
   */
  function choose(key, requests, { timed = false } = {}) {
    const [kind, name] = split(key);
    const state = filterOf(key);
    const population = { from: state.from_ns, to: state.to_ns, single: false, passed: null };
    const byRequest =
      !timed || ["slow", "typical", "request"].includes(kind) || pk.filter.choosesRequests(state);
    if (!requests || !byRequest) return population;
    if (kind === "request") {
      population.passed = new Uint8Array(requests.start_ns.length);
      // In bins of requests, the bin that it is in.
      population.passed[requests.of_request ? requests.of_request[Number(name)] : Number(name)] = 1;
      population.single = true;
      return population;
    }
    population.passed = pk.filter.mask(requests, state);
    if (kind === "slow" || kind === "typical") tail(population.passed, requests, kind === "slow");
    return population;
  }

  /** Leaves the slow requests of every endpoint, or the typical ones. */
  function tail(passed, { endpoint, duration_ns: duration, weight }, slow) {
    const rows = new Map();
    for (let i = 0; i < passed.length; i++) {
      if (!passed[i]) continue;
      if (!rows.has(endpoint[i])) rows.set(endpoint[i], []);
      rows.get(endpoint[i]).push(i);
    }
    for (const list of rows.values()) {
      list.sort((a, b) => duration[a] - duration[b]);
      const of = (i) => (weight ? weight[i] : 1);
      let whole = 0;
      for (const i of list) whole += of(i);
      const mark = (level) => {
        let sum = 0;
        for (const i of list) if ((sum += of(i)) >= level * whole - 1e-9) return duration[i];
        return Infinity;
      };
      const [low, high] = [mark(TYPICAL), mark(SLOW)];
      for (const i of list) {
        const keep = slow ? duration[i] >= high && duration[i] > low : duration[i] <= low;
        if (whole < FEWEST || !keep) passed[i] = 0;
      }
    }
  }

  pk.populations = { choices, title, choose, keyOfFilter };
}
