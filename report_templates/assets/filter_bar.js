"use strict";
// The one filter bar, and everything in the page that follows it without a script of its own.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;
  const UNITS = { ns: 1, us: 1e3, µs: 1e3, ms: 1e6, s: 1e9, m: 60e9, min: 60e9, h: 3600e9 };

  /** `250ms`, `1.5 s`, `2 min` as nanoseconds; a bare number is milliseconds. Null when neither. */
  function parseDuration(text) {
    const [, amount, unit] = text.trim().match(/^(\d+(?:\.\d*)?|\.\d+)\s*([a-zµ]*)$/i) ?? [];
    if (amount === undefined) return null;
    const factor = unit === "" ? 1e6 : UNITS[unit.toLowerCase()];
    return factor ? Number(amount) * factor : null;
  }

  /** A select over one of the filter's lists. A link may choose several; they stay one choice. */
  function nameSelect(all, names, list) {
    const SEVERAL = "\u0000several";
    const select = el("select", {
      class: "select",
      "aria-label": all.replace("All ", "Filter by "),
    });
    select.append(el("option", { value: "", text: all }));
    names.forEach((name, i) =>
      select.append(
        el("option", {
          value: String(i),
          text: pk.format.text(name, 120),
          title: pk.format.text(name, 1000),
        }),
      ),
    );
    select.addEventListener("change", () => {
      if (select.value !== SEVERAL)
        pk.filter.set({ [list]: select.value === "" ? [] : [names[select.value]] });
    });
    const show = (state) => {
      const chosen = state[list];
      select.querySelector(`[value="${CSS.escape(SEVERAL)}"]`)?.remove();
      const at = chosen.length === 1 ? names.indexOf(chosen[0]) : -1;
      if (at >= 0) select.value = String(at);
      else if (!chosen.length) select.value = "";
      else {
        const text =
          chosen.length === 1 ? pk.format.text(chosen[0], 60) : `${chosen.length} chosen`;
        select.append(el("option", { value: SEVERAL, text }));
        select.value = SEVERAL;
      }
      select.classList.toggle("is-set", chosen.length > 0);
    };
    return names.length > 1 || pk.filter.state[list].length ? [select, show] : null;
  }

  function statusSelect() {
    const choices = [
      ["", "Any status"],
      ["ok", "Succeeded"],
      ["error", "Failed"],
    ];
    const select = pk.dom.select("Filter by status", choices, "", (status) =>
      pk.filter.set({ status }),
    );
    return [
      select,
      ({ status }) => {
        select.value = status;
        select.classList.toggle("is-set", status !== "");
      },
    ];
  }

  function durationInput() {
    const input = el("input", {
      class: "input",
      placeholder: "Longer than…",
      "aria-label": "Only requests longer than, for example 250ms",
      title: "For example 250ms or 1.5s; a bare number is milliseconds",
    });
    input.addEventListener("change", () => {
      const value = input.value.trim() === "" ? 0 : parseDuration(input.value);
      input.setAttribute("aria-invalid", String(value === null));
      if (value !== null) pk.filter.set({ min_duration_ns: value });
    });
    const show = ({ min_duration_ns: value }) => {
      if (document.activeElement !== input) input.value = value ? pk.format.duration(value) : "";
      input.classList.toggle("is-set", value > 0);
    };
    return [input, show];
  }

  function timeRange() {
    const text = el("span");
    const clear = el("button", {
      type: "button",
      text: "×",
      "aria-label": "All of the time",
      on: { click: () => pk.filter.set({ from_ns: null, to_ns: null }) },
    });
    const chip = el("span", { class: "filter-range" }, text, clear);
    const show = ({ from_ns: from, to_ns: to }) => {
      chip.hidden = from === null && to === null;
      const end = to ?? pk.data.page.duration_ns;
      text.textContent = `${pk.format.duration(from ?? 0)} – ${pk.format.duration(end)}`;
      chip.title = `${pk.format.clock(from ?? 0)} – ${pk.format.clock(end)}, ${pk.format.duration(end - (from ?? 0))}`;
    };
    return [chip, show];
  }

  /** Which one request is shown, when only one is. */
  function oneRequest(requests) {
    const text = el("span");
    const clear = el("button", {
      type: "button",
      text: "×",
      "aria-label": "All requests again",
      on: { click: () => pk.filter.set({ request: null }) },
    });
    const chip = el("span", { class: "filter-range", "data-chip": "request" }, text, clear);
    const show = ({ request }) => {
      chip.hidden = request === null;
      if (request === null) return;
      const known = requests && request < requests.start_ns.length;
      const duration = known ? pk.format.duration(requests.duration_ns[request]) : "unknown";
      const start = known ? pk.format.duration(requests.start_ns[request]) : "";
      text.textContent = `One request: ${duration}, at ${start}`;
    };
    return [chip, show];
  }

  function clearButton() {
    const button = pk.dom.button("Clear filter", () => pk.filter.clear());
    return [button, () => (button.hidden = !pk.filter.active())];
  }

  function counter(requests) {
    const text = el("span", { class: "filter-count", "aria-live": "polite" });
    const whole = requests ? weigh(requests, null) : 0;
    const show = () => {
      if (!requests) return;
      const chosen = pk.filter.active() ? weigh(requests, pk.filter.mask(requests)) : whole;
      text.textContent = pk.filter.active()
        ? `${about(true)}${pk.format.number(chosen)} of ${pk.format.plural(whole, "request")}`
        : pk.format.plural(whole, "request");
    };
    return [text, show];
  }

  function weigh({ start_ns: start, weight }, mask) {
    let sum = 0;
    for (let i = 0; i < start.length; i++) if (!mask || mask[i]) sum += weight ? weight[i] : 1;
    return Math.round(sum);
  }

  /**
   * What stands before a number of the filter's requests where the page has bins of them: a bin is of
   * one endpoint, tool, service and status, so that counts of these are exact, but not of one moment
   * and one duration.
   */
  function about(counts, state = pk.filter.state) {
    if (!pk.data.slow_requests?.coarse) return "";
    const cuts = state.from_ns !== null || state.to_ns !== null || state.min_duration_ns > 0;
    return counts && !cuts ? "" : "≈ ";
  }

  // ---- numbers in the page that follow the filter ----

  const QUANTILES = { p50_ns: 0.5, p90_ns: 0.9, p95_ns: 0.95, p99_ns: 0.99, max_ns: 1 };

  function quantiles({ duration_ns: duration, weight }, mask) {
    const chosen = [];
    for (let i = 0; i < mask.length; i++) if (mask[i]) chosen.push(i);
    const weights = weight ? chosen.map((i) => weight[i]) : null;
    return pk.liveTable.quantiles(
      chosen.map((i) => duration[i]),
      weights,
      Object.values(QUANTILES),
    );
  }

  function stats(requests) {
    const slots = [...document.querySelectorAll("[data-stat]")];
    const original = slots.map((slot) => slot.textContent);
    return (state) => {
      if (!requests) return;
      // Unfiltered, the page says what the analysis said.
      if (!pk.filter.active()) return slots.forEach((slot, i) => (slot.textContent = original[i]));
      const mask = pk.filter.mask(requests);
      const values = quantiles(requests, mask);
      const numbers = Object.fromEntries(Object.keys(QUANTILES).map((key, i) => [key, values[i]]));
      numbers.requests = weigh(requests, mask);
      numbers.errors = weigh(
        requests,
        mask.map((passed, i) => passed & requests.status[i]),
      );
      numbers.error_ratio = numbers.requests ? numbers.errors / numbers.requests : null;
      const { from_ns: from, to_ns: to } = state;
      const { covered_ns: covered, duration_ns: whole } = pk.data.page;
      const length = from === null && to === null ? covered : (to ?? whole) - (from ?? 0);
      numbers.rate_per_s = length > 0 ? numbers.requests / (length / 1e9) : null;
      for (const slot of slots) {
        const name = slot.dataset.stat;
        const value = numbers[name];
        const mark = value === null || !Number.isFinite(value) ? "" : about(!(name in QUANTILES), state);
        slot.textContent = mark + said(name, value);
        slot.title = mark ? "From bins of like requests: the capture is too large for each to be in this page" : "";
      }
      return undefined;
    };
  }

  function said(name, value) {
    if (name.endsWith("_ns")) return pk.format.duration(value);
    if (name.endsWith("_ratio")) return pk.format.percent(value);
    if (name.endsWith("_per_s")) return pk.format.rate(value);
    return pk.format.number(value);
  }

  /** Cards about endpoints or tools that the filter leaves out are hidden. */
  function scopes() {
    const scoped = [...document.querySelectorAll("[data-scope]")].map((element) => [
      element,
      JSON.parse(element.dataset.scope),
    ]);
    return (state) => {
      for (const [element, scope] of scoped) {
        const out = ["endpoints", "tools"].some((list) => {
          const named = scope[list] ?? [];
          return (
            state[list].length && named.length && !named.some((name) => state[list].includes(name))
          );
        });
        element.hidden = out;
      }
    };
  }

  function start() {
    const form = document.querySelector("[data-filter-bar]");
    const { endpoints = [], tools = [], services = [] } = pk.data.page ?? {};
    const requests = pk.data.slow_requests?.requests ?? pk.data.flame_requests?.groups;
    const parts = [
      nameSelect("All endpoints", endpoints, "endpoints"),
      nameSelect("All tools", tools, "tools"),
      nameSelect("All services", services, "services"),
      requests ? statusSelect() : null,
      requests ? durationInput() : null,
      timeRange(),
      oneRequest(requests),
      clearButton(),
      counter(requests),
    ].filter(Boolean);
    const followers = [...parts.map(([, show]) => show), stats(requests), scopes()];
    if (form) {
      form.setAttribute("aria-label", "Filter");
      form.addEventListener("submit", (event) => event.preventDefault());
      form.append(...parts.map(([element]) => element));
      form.hidden = false;
    }
    for (const button of document.querySelectorAll("[data-filter-set]")) {
      button.addEventListener("click", () => pk.filter.set(JSON.parse(button.dataset.filterSet)));
    }
    const follow = (state) => followers.forEach((show) => show(state));
    pk.filter.on(follow);
    follow(pk.filter.state);
  }

  pk.filterBar = { start, parseDuration };
}
