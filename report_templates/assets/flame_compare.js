"use strict";
// What grew and what shrank between two populations of one tree, and what of it may be chance.
{
  const pk = (window.perfkit ??= {});

  /** Ours: so many standard errors apart a difference is not called chance; one in a hundred is. */
  const BAND = 3;
  /** Ours: a smaller part of the whole is never coloured. */
  const LEAST = 0.001;

  /**
   * Standard error of the share of each node in the whole, from blocks of time: the jackknife, which
   * leaves out one block after the other (Quenouille 1956). Null when there are fewer than two blocks.
   */
  function standardErrors(column, whole, blocks, wholes) {
    const filled = blocks.filter((_, b) => wholes[b] > 0);
    const sizes = wholes.filter((size) => size > 0);
    const n = sizes.length;
    if (n < 2) return null;
    const errors = new Float64Array(column.length);
    for (let i = 0; i < column.length; i++) {
      if (!(column[i] > 0)) continue;
      let sum = 0;
      let squares = 0;
      for (let b = 0; b < n; b++) {
        const share = (column[i] - filled[b][i]) / (whole - sizes[b]);
        sum += share;
        squares += share * share;
      }
      errors[i] = Math.sqrt(Math.max(((n - 1) / n) * (squares - (sum * sum) / n), 0));
    }
    return errors;
  }

  function errorsOf(values) {
    if (!values.blocks) return null;
    const totals = values.blocks.map(({ total }) => total);
    return standardErrors(values.total, values.whole, totals, values.blocks.map(({ whole }) => whole));
  }

  /**
   * How the share of each node differs from a baseline. `step(node)` is -3 … 3: 0 where the
   * difference is within the noise band or below a thousandth of the whole. `band(node)` is that
   * band, `known` whether chance could be estimated at all. `both` are values that give the mean of
   * both sides' shares: a graph in which vanished and new frames have their width.
   */
  function compare(values, baseline, titles = ["now", "before"]) {
    const share = (of, node) => (of.whole > 0 ? of.total[node] / of.whole : 0);
    const delta = (node) => share(values, node) - share(baseline, node);
    const errors = [errorsOf(values), errorsOf(baseline)];
    const known = errors.every((one) => one !== null) || (values.samples > 1 && baseline.samples > 1);
    let most = 0;
    for (let i = 0; i < values.total.length; i++) most = Math.max(most, Math.abs(delta(i)));
    const variance = (node) => {
      if (errors[0] && errors[1]) return errors[0][node] ** 2 + errors[1][node] ** 2;
      if (!known) return 0;
      const p = (share(values, node) + share(baseline, node)) / 2;
      return p * (1 - p) * (1 / values.samples + 1 / baseline.samples);
    };
    const band = (node) => Math.max(LEAST, BAND * Math.sqrt(variance(node)));
    return {
      baseline,
      titles,
      known,
      band,
      delta,
      both: bothOf(values, baseline),
      step(node) {
        const d = delta(node);
        if (Math.abs(d) <= band(node)) return 0;
        return Math.sign(d) * Math.min(3, 1 + Math.floor((3 * Math.abs(d)) / most));
      },
      text: (node) =>
        `${pk.format.percent(share(baseline, node))} of all, now ${pk.format.percent(share(values, node))}`,
      facts: (node, unit) => facts(node, unit, { values, baseline, titles, delta, band, known }),
    };
  }

  const capital = (text) => text[0].toUpperCase() + text.slice(1);

  function facts(node, unit, { values, baseline, titles, delta, band, known }) {
    const side = (of) => {
      if (!(of.total[node] > 0)) return "not there";
      const per = of.perRequest ? `, ${pk.format.value(of.total[node] / of.perRequest, unit)} a request` : "";
      return `${pk.format.percent(of.total[node] / of.whole)} of all${per}; self ${pk.format.percent(of.self[node] / of.whole)}`;
    };
    const d = delta(node);
    const sign = d < 0 ? "−" : "+";
    const points = (ratio) => pk.format.percent(Math.abs(ratio)).replace(/\s*%$/, "");
    const within = Math.abs(d) <= band(node);
    const noise = known
      ? `${within ? "within" : "beyond"} ±${points(band(node))} of noise`
      : "noise not known: too little to tell";
    return [
      [capital(titles[0]), side(values)],
      [capital(titles[1]), side(baseline)],
      ["Change", `${sign}${points(d)} points, ${noise}`],
    ];
  }

  /** The mean of both sides, each as a share of its whole, at the size of the first. */
  function bothOf(values, baseline) {
    const size = values.whole || 1;
    const one = values.whole > 0 ? size / values.whole / 2 : 0;
    const other = baseline.whole > 0 ? size / baseline.whole / 2 : 0;
    const mean = (name) => values[name].map((value, i) => value * one + baseline[name][i] * other);
    return { total: mean("total"), self: mean("self") };
  }

  pk.flame ??= {};
  Object.assign(pk.flame, { compare, standardErrors });
}
