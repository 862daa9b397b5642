"use strict";
// Trends and spikes: what was in the chosen time and of the chosen endpoints.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;

  pk.section("trends", (root, data) => {
    const follow = [episodes(root, data), waits(root, data), charts(root, data)];
    return { update: (state) => follow.forEach((each) => each(state)) };
  });

  const nothing = () => {};
  const meets = ({ from_ns: from, to_ns: to }, state) =>
    from < (state.to_ns ?? Infinity) && to > (state.from_ns ?? -Infinity);
  const ofChosen = (names, { endpoints }) =>
    !endpoints.length || !names.length || names.some((name) => endpoints.includes(name));

  /** Hides the episodes of other times and of other endpoints alone, and says how many those are. */
  function episodes(root, data) {
    const cards = [...root.querySelectorAll(".episode")];
    const note = root.querySelector("[data-slot=episodes]");
    if (!cards.length || !note || !data.episodes) return nothing;
    return (state) => {
      let left = 0;
      data.episodes.forEach((episode, i) => {
        cards[i].hidden = !(meets(episode, state) && ofChosen(episode.endpoints, state));
        left += cards[i].hidden ? 1 : 0;
      });
      note.textContent = left
        ? `${left} of ${cards.length} are of another time or of other endpoints than the filter's. Figures are of the whole capture.`
        : "";
    };
  }

  /** The table of what was waited for, of the stretches of time that touch the chosen time. */
  function waits(root, data) {
    const table = root.querySelector("[data-table=contention]");
    const note = root.querySelector("[data-slot=waits]");
    if (!table || !data.waits) return nothing;
    const live = pk.liveTable.create(table);
    const rows = [...table.tBodies[0].rows];
    const texts = rows.map((row) => [...row.cells].map((cell) => [...cell.childNodes]));
    return (state) => {
      const timed = state.from_ns !== null || state.to_ns !== null;
      const more = pk.filter.choosesRequests(state);
      note.hidden = !timed && !more;
      note.textContent = [
        timed ? "Stretches of waiting that touch the chosen time, each as a whole." : "",
        more ? "Of all requests: who waited is not told apart by the rest of the filter." : "",
      ].join(" ").trim();
      live.restore();
      const found = timed ? within(data.waits, rows.length, state) : null;
      if (found) live.show(found);
      for (const row of rows) {
        const i = Number(row.dataset.row);
        row.hidden = found !== null && !found.episodes[i];
        const cells = [...row.cells];
        // The two texts that follow the time: how much at most, and who suffered most.
        const [level, worst] = [cells.at(-6), cells.at(-2)];
        const before = texts[rows.indexOf(row)];
        level.replaceChildren(...(found ? [said(found.peak_level[i], data.waits.units[i])] : before.at(-6)));
        worst.replaceChildren(...(found ? [found.worst[i] || pk.format.MISSING] : before.at(-2)));
      }
    };
  }

  /** As _level in perfkit/report/sections/trends.py. */
  function said(level, unit) {
    if (!Number.isFinite(level)) return pk.format.MISSING;
    if (unit === "1" || unit === "share of time" || unit === null) return pk.format.percent(level);
    if (unit === "s") return `${pk.format.number(level)} waiting`;
    const [noun, ...rest] = unit.replace(/[{}]/g, "").split(" ");
    const counted = noun.replace(/s$/, "") + (level === 1 ? "" : "s");
    return [pk.format.number(level), counted, ...rest].join(" ");
  }

  const SUMS = ["contended_ns", "wait_ns", "began", "extra_ns"];

  function within(waits, count, state) {
    const blank = (value) => new Float64Array(count).fill(value);
    const found = { episodes: blank(0), at_ns: blank(NaN), peak_level: blank(NaN), worst: Array(count).fill("") };
    for (const key of SUMS) found[key] = blank(NaN);
    const worst = blank(-Infinity);
    for (let k = 0; k < waits.row.length; k++) {
      const i = waits.row[k];
      if (!meets({ from_ns: waits.start_ns[k], to_ns: waits.end_ns[k] }, state)) continue;
      found.episodes[i]++;
      found.at_ns[i] = least(found.at_ns[i], waits.start_ns[k]);
      found.peak_level[i] = most(found.peak_level[i], waits.peak_level[k]);
      for (const key of SUMS)
        if (!Number.isNaN(waits[key][k])) found[key][i] = (found[key][i] || 0) + waits[key][k];
      if (waits.worst_extra_ns[k] > worst[i]) {
        worst[i] = waits.worst_extra_ns[k];
        found.worst[i] = pk.format.text(waits.strings[waits.endpoint[k]], 200);
      }
    }
    return found;
  }

  const least = (a, b) => (Number.isNaN(a) ? b : Math.min(a, b));
  const most = (a, b) => (Number.isNaN(a) ? b : Number.isNaN(b) ? a : Math.max(a, b));

  function charts(root, data) {
    const slot = root.querySelector("[data-slot=charts]");
    if (!slot || !data.charts) return nothing;
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
    return (state) => {
      for (const { chart, figure } of figures)
        figure.hidden = !ofChosen(chart.endpoint ? [chart.endpoint] : [], state);
    };
  }

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
