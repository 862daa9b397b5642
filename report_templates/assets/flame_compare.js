"use strict";
// What grew and what shrank between two populations of one tree.
{
  const pk = (window.perfkit ??= {});

  /**
   * How the share of each node differs from a baseline. Steps -3..3; 0 where the difference is within
   * two standard errors (when the values carry counts of samples) or below a thousandth of the whole.
   */
  function compare(values, baseline) {
    const share = (of, node) => (of.whole > 0 ? of.total[node] / of.whole : 0);
    const n = (of) => of.samples ?? Infinity;
    const delta = (node) => share(values, node) - share(baseline, node);
    let most = 0;
    for (let i = 0; i < values.total.length; i++) most = Math.max(most, Math.abs(delta(i)));
    const band = (node) => {
      const p = (share(values, node) + share(baseline, node)) / 2;
      return Math.max(0.001, 2 * Math.sqrt(p * (1 - p) * (1 / n(values) + 1 / n(baseline))));
    };
    return {
      baseline,
      step(node) {
        const d = delta(node);
        if (Math.abs(d) <= band(node)) return 0;
        return Math.sign(d) * Math.min(3, 1 + Math.floor((3 * Math.abs(d)) / most));
      },
      text: (node) =>
        `${pk.format.percent(share(baseline, node))} of all, now ${pk.format.percent(share(values, node))}`,
    };
  }

  pk.flame ??= {};
  pk.flame.compare = compare;
}
