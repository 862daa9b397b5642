"use strict";
// What the reader chose to look at: one state for all sections, kept in the URL fragment so that a
// link shows the same view. Other view settings (a zoomed frame, say) live beside it in the fragment.
{
  const pk = (window.perfkit ??= {});
  const LISTS = { endpoint: "endpoints", tool: "tools", service: "services" };
  const NUMBERS = { from: "from_ns", to: "to_ns", min: "min_duration_ns", only: "request" };
  const EMPTY = {
    endpoints: [],
    tools: [],
    services: [],
    status: "",
    from_ns: null,
    to_ns: null,
    min_duration_ns: 0,
    request: null, // The row of one request in the page's list of them.
  };
  const listeners = [];
  let state = structuredClone(EMPTY);
  let views = new Map();

  function read() {
    const next = structuredClone(EMPTY);
    const nextViews = new Map();
    for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
      if (Object.hasOwn(LISTS, key)) next[LISTS[key]].push(value);
      else if (Object.hasOwn(NUMBERS, key))
        next[NUMBERS[key]] = amount(value) ?? EMPTY[NUMBERS[key]];
      else if (key === "status") next.status = value;
      else if (value !== "") nextViews.set(key, value);
    }
    return [valid(next), nextViews];
  }

  function amount(text) {
    const value = text.trim() === "" ? NaN : Number(text);
    return Number.isFinite(value) && value >= 0 ? value : null;
  }

  function valid(next) {
    for (const list of Object.values(LISTS)) next[list] = [...new Set(next[list])];
    if (!["ok", "error"].includes(next.status)) next.status = "";
    const { from_ns: from, to_ns: to } = next;
    if (from !== null && to !== null && to < from) [next.from_ns, next.to_ns] = [to, from];
    return next;
  }

  function write() {
    const parameters = new URLSearchParams();
    for (const [key, list] of Object.entries(LISTS)) {
      for (const value of state[list]) parameters.append(key, value);
    }
    if (state.status) parameters.set("status", state.status);
    for (const [key, name] of Object.entries(NUMBERS)) {
      if (state[name] !== EMPTY[name]) parameters.set(key, String(Math.round(state[name])));
    }
    for (const [key, value] of views) parameters.set(key, value);
    const hash = parameters.toString();
    // replaceState: a filter being dragged must not fill the history, nor scroll the page.
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  function notify() {
    for (const listener of listeners) listener(pk.filter.state);
  }

  function set(patch) {
    const next = valid({ ...state, ...patch });
    if (JSON.stringify(next) === JSON.stringify(state)) return;
    state = next;
    write();
    notify();
  }

  /**
   * Which rows of request columns pass: one byte each. A request belongs to a time range when it
   * starts in it; columns without a start are of no time, and take any.
   */
  function mask(columns, state = current()) {
    const { strings, start_ns: start, duration_ns: duration, status } = columns;
    const length = status.length;
    const passed = new Uint8Array(length).fill(1);
    for (const [key, list] of Object.entries(LISTS)) {
      if (state[list].length) keepNamed(passed, columns[key], strings, state[list]);
    }
    const from = state.from_ns ?? -Infinity;
    const to = state.to_ns ?? Infinity;
    const least = state.min_duration_ns;
    const wanted = state.status === "" ? -1 : state.status === "error" ? 1 : 0;
    // A capture before this one has no such request: all of it is what to compare with.
    if (state.request !== null && start) keepOnly(passed, columns, state.request);
    for (let i = 0; i < length; i++) {
      if (start && (start[i] < from || start[i] >= to || duration[i] < least)) passed[i] = 0;
      else if (wanted >= 0 && status[i] !== wanted) passed[i] = 0;
    }
    return passed;
  }

  const current = () => state;

  /** Only what is chosen: a short form of a state. */
  function chosen() {
    const changed = Object.entries(state).filter(
      ([key, value]) => JSON.stringify(value) !== JSON.stringify(EMPTY[key]),
    );
    return structuredClone(Object.fromEntries(changed));
  }

  /** A state from a short form of anybody's making: unknown keys and wrong types are left out. */
  function complete(short) {
    const next = structuredClone(EMPTY);
    for (const list of Object.values(LISTS)) {
      if (Array.isArray(short[list])) next[list] = short[list].map(String);
    }
    for (const name of Object.values(NUMBERS)) {
      if (Number.isFinite(short[name]) && short[name] >= 0) next[name] = short[name];
    }
    if (typeof short.status === "string") next.status = short.status;
    return valid(next);
  }

  /** Keeps one request; of columns that have bins of requests, the bin that it is in. */
  function keepOnly(passed, { start_ns: start, of_request: binOf }, request) {
    const all = pk.data?.slow_requests?.requests;
    const same = !all || all.start_ns.length === start.length;
    const row = binOf ? binOf[request] : same ? request : -1;
    const kept = passed[row] ?? 0;
    passed.fill(0);
    if (kept) passed[row] = kept;
  }

  function keepNamed(passed, column, strings, names) {
    const wanted = new Uint8Array(strings.length);
    const set = new Set(names);
    strings.forEach((name, i) => (wanted[i] = set.has(name) ? 1 : 0));
    for (let i = 0; i < passed.length; i++) {
      if (column[i] < 0 || !wanted[column[i]]) passed[i] = 0;
    }
  }

  [state, views] = read();
  window.addEventListener("hashchange", () => {
    const before = JSON.stringify(state);
    [state, views] = read();
    if (JSON.stringify(state) !== before) notify();
  });

  pk.filter = {
    get state() {
      return structuredClone(state);
    },
    on: (listener) => listeners.push(listener),
    set,
    clear: () => set(structuredClone(EMPTY)),
    /** Whether anything is chosen that tells requests apart (`time` alone does not). */
    choosesRequests: (of = state) =>
      Object.values(LISTS).some((list) => of[list].length > 0) ||
      of.status !== "" ||
      (of.request ?? null) !== null ||
      of.min_duration_ns > 0,
    chosen,
    complete,
    active: () => JSON.stringify(state) !== JSON.stringify(EMPTY),
    mask,
    view: (key) => views.get(key) ?? null,
    setView(key, value) {
      if (value === null || value === "") views.delete(key);
      else views.set(key, String(value));
      write();
    },
  };
}
