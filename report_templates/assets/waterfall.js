"use strict";
// The spans of one request as rows on one time axis, with the critical path marked.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;
  const FIRST = 400;

  /**
   * `spans`: {length, name(i), service(i), category(i), parent(i), start(i), duration(i), self(i),
   * error(i), facts(i) -> [[name, value], …]}, and `critical`: [[span, start, end], …]. All times are
   * ns from the request's start; parents come before their children.
   */
  function create(element, spans, critical) {
    const n = spans.length;
    const children = Array.from({ length: n }, () => []);
    const roots = [];
    for (let i = 0; i < n; i++) (spans.parent(i) >= 0 ? children[spans.parent(i)] : roots).push(i);
    const segments = new Map();
    for (const [span, from, to] of critical) {
      if (!segments.has(span)) segments.set(span, []);
      segments.get(span).push([from, to]);
    }
    const scale = extent(spans);
    const folded = new Set();
    const open = new Set();
    let limit = FIRST;

    function visible() {
      const rows = [];
      const stack = roots.map((i) => [i, 0]).reverse();
      while (stack.length) {
        const [i, depth] = stack.pop();
        rows.push([i, depth]);
        if (folded.has(i)) continue;
        for (let k = children[i].length - 1; k >= 0; k--) stack.push([children[i][k], depth + 1]);
      }
      return rows;
    }

    const root = el("div", {
      class: "waterfall",
      role: "table",
      "aria-label": "Spans of the request",
    });

    function render() {
      const rows = visible();
      const shown = rows
        .slice(0, limit)
        .flatMap(([i, depth]) =>
          open.has(i) ? [row(i, depth), detail(i, depth)] : [row(i, depth)],
        );
      root.replaceChildren(axis(scale), ...shown);
      if (rows.length > limit) {
        const more = pk.dom.button(
          `Show ${pk.format.number(rows.length - limit)} more spans`,
          () => ((limit = Infinity), render()),
        );
        more.className += " waterfall-more";
        root.append(more);
      }
    }

    function row(i, depth) {
      const toggle = (set) => (set.has(i) ? set.delete(i) : set.add(i), render(), focus(i, set));
      const fold = el("button", {
        type: "button",
        class: "waterfall-fold",
        text: children[i].length ? (folded.has(i) ? "▶" : "▼") : "",
        "aria-label": folded.has(i) ? "Show what it called" : "Hide what it called",
        "aria-expanded": children[i].length ? String(!folded.has(i)) : null,
        disabled: !children[i].length,
        on: { click: () => toggle(folded) },
      });
      const name = el(
        "button",
        {
          type: "button",
          class: "waterfall-open",
          "aria-expanded": String(open.has(i)),
          title: spans.name(i),
          on: { click: () => toggle(open) },
        },
        spans.name(i),
        el("span", { class: "service", text: `  ${spans.service(i)}` }),
      );
      const cell = el("div", { class: "waterfall-name", role: "rowheader" }, fold, name);
      const track = el(
        "div",
        { class: "waterfall-track", role: "cell", on: { click: () => toggle(open) } },
        ...bars(i),
      );
      track.addEventListener("pointermove", (event) =>
        pk.dom.showTip(pk.dom.facts(spans.name(i), summary(i)), event.clientX, event.clientY),
      );
      track.addEventListener("pointerleave", pk.dom.hideTip);
      return el(
        "div",
        {
          class: spans.error(i) ? "waterfall-row is-error" : "waterfall-row",
          role: "row",
          "data-span": i,
          style: { "--depth": Math.min(depth, 16) },
        },
        cell,
        track,
      );
    }

    function focus(i, set) {
      const button = root.querySelector(
        `[data-span="${i}"] ${set === open ? ".waterfall-open" : ".waterfall-fold"}`,
      );
      button?.focus({ preventScroll: true });
      pk.dom.hideTip();
    }

    function bars(i) {
      const fill = pk.flame.hues()[pk.flame.categoryHue(spans.category(i))];
      const left = scale.at(spans.start(i));
      const right = scale.at(spans.start(i) + spans.duration(i));
      const bar = el("div", {
        class: "waterfall-bar",
        style: { left: `${left}%`, width: `${right - left}%`, "--fill": fill },
      });
      const marks = (segments.get(i) ?? []).map(([from, to]) =>
        el("div", {
          class: "waterfall-critical",
          style: { left: `${scale.at(from)}%`, width: `${scale.at(to) - scale.at(from)}%` },
        }),
      );
      const time = el("span", {
        class: "waterfall-time",
        text: pk.format.duration(spans.duration(i)),
        style: beside(left, right),
      });
      return [bar, ...marks, time];
    }

    function summary(i) {
      const rows = [
        ["Duration", pk.format.duration(spans.duration(i))],
        ["Self", pk.format.duration(spans.self(i))],
        ["Starts at", pk.format.duration(spans.start(i))],
      ];
      let onPath = 0;
      for (const [from, to] of segments.get(i) ?? []) onPath += to - from;
      if (onPath > 0) rows.push(["On the critical path", pk.format.duration(onPath)]);
      rows.push(["Service", spans.service(i)], ["Kind", spans.category(i)]);
      if (spans.error(i)) rows.push(["Status", "error"]);
      return rows;
    }

    function detail(i, depth) {
      const list = el("dl", { class: "pairs" });
      for (const [key, value] of summary(i))
        list.append(el("dt", { text: key }), el("dd", { class: "is-plain", text: value }));
      for (const [key, value] of spans.facts(i))
        list.append(el("dt", { text: key }), el("dd", {}, pk.dom.long(value)));
      return el(
        "div",
        { class: "waterfall-detail", style: { "--depth": Math.min(depth, 16) } },
        list,
      );
    }

    render();
    element.replaceChildren(root);
    return { draw: render };
  }

  /** Where the words stand: after the bar, before one that ends at the edge, or on a long one. */
  function beside(left, right) {
    if (right < 84) return { left: `${right}%` };
    if (left > 14) return { right: `${100 - left}%` };
    return { left: `${left}%`, color: pk.flame.hues().text };
  }

  /** The time axis: from the first start to the last end, as per cent. */
  function extent(spans) {
    let from = Infinity;
    let to = -Infinity;
    for (let i = 0; i < spans.length; i++) {
      from = Math.min(from, spans.start(i));
      to = Math.max(to, spans.start(i) + spans.duration(i));
    }
    const width = Math.max(to - from, 1);
    return { from, to, at: (time) => (100 * (time - from)) / width };
  }

  function axis(scale) {
    const marks = pk.timeAxis.ticks(scale.from, scale.to, 5).filter((time) => scale.at(time) < 96);
    const labels = marks.map((time) =>
      el("span", {
        text: time === 0 ? "0" : pk.format.duration(time),
        style: { left: `${scale.at(time)}%` },
      }),
    );
    return el("div", { class: "waterfall-axis", "aria-hidden": "true" }, ...labels);
  }

  pk.waterfall = { create };
}
