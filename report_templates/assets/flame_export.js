"use strict";
// The present view of a flame graph as a file: filtered, zoomed and without what is hidden, as shown.
{
  const pk = (window.perfkit ??= {});
  const FORMATS = [
    ["svg", "SVG", "image/svg+xml"],
    ["png", "PNG", "image/png"],
    ["collapsed", "Collapsed stacks", "text/plain"],
    ["speedscope", "speedscope", "application/json"],
  ];
  const SUFFIX = { svg: ".svg", png: ".png", collapsed: ".collapsed.txt", speedscope: ".speedscope.json" };
  const SCALE = 2;

  const escape = (text) =>
    text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);

  /** What of a stage's bars a picture needs, in order: place, colour, text, full name. */
  function boxes(stage) {
    const { bars, tree, options, difference, hits } = stage;
    const paint = pk.flame.painter(tree, options.colour, difference);
    const shades = pk.flame.hues();
    const result = [];
    for (let row = 0; row < bars.rows; row++) {
      for (let i = bars.rowStart[row]; i < bars.rowStart[row + 1]; i++) {
        const width = bars.x1[i] - bars.x0[i];
        const { fill, colour } = pk.flame.fillOf(bars, i, { paint, hits }, shades);
        const name = pk.format.text(stage.name(i), 300);
        result.push({
          x: bars.x0[i],
          y: stage.flip(row) * pk.flame.ROW,
          width: Math.max(width - 1, Math.min(width, 0.6)),
          fill,
          colour,
          label: pk.flame.label(name, width),
          title: `${name} (${stage.facts(i)[0]?.[1] ?? ""})`,
        });
      }
    }
    return result;
  }

  function svg({ stage }) {
    const height = stage.bars.rows * pk.flame.ROW;
    const parts = boxes(stage).map(
      ({ x, y, width, fill, colour, label, title }) =>
        `<g><title>${escape(title)}</title><rect x="${x.toFixed(2)}" y="${y}" width="${width.toFixed(2)}" height="${pk.flame.ROW - 1}" fill="${fill}"/>` +
        (label ? `<text x="${(x + 4).toFixed(2)}" y="${y + 13}" fill="${colour}">${escape(label)}</text>` : "") +
        "</g>",
    );
    return (
      `<svg xmlns="http://www.w3.org/2000/svg" width="${stage.width}" height="${height}" viewBox="0 0 ${stage.width} ${height}" font-family="sans-serif" font-size="11.5">` +
      `<rect width="100%" height="100%" fill="${background()}"/>\n${parts.join("\n")}\n</svg>\n`
    );
  }

  const background = () => pk.theme.colour("--surface");

  function png({ stage }) {
    const canvas = document.createElement("canvas");
    canvas.width = stage.width * SCALE;
    canvas.height = stage.bars.rows * pk.flame.ROW * SCALE;
    const pen = canvas.getContext("2d");
    pen.scale(SCALE, SCALE);
    pen.fillStyle = background();
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.font = `11.5px ${getComputedStyle(document.body).fontFamily}`;
    for (const { x, y, width, fill, colour, label } of boxes(stage)) {
      pen.fillStyle = fill;
      pen.fillRect(x, y, width, pk.flame.ROW - 1);
      pen.fillStyle = colour;
      if (label) pen.fillText(label, x + 4, y + 13);
    }
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  /** The nodes with own time at or below the node that is zoomed to, of any of `sides`. */
  function stacks({ tree, stage }, sides) {
    const base = stage.view.node;
    const inside = new Uint8Array(tree.n);
    const found = [];
    for (let i = 0; i < tree.n; i++) {
      const above = tree.parent[i];
      inside[i] = base < 0 || i === base || (above >= 0 && inside[above]) ? 1 : 0;
      if (inside[i] && sides.some(({ self }) => Math.round(self[i]) > 0)) found.push(i);
    }
    return found;
  }

  /** Of a difference both sides, otherwise what is shown. */
  const sidesOf = ({ difference, values }) => (difference ? [difference.baseline, values] : [values]);

  const frame = (tree, node) => pk.format.text(tree.strings[tree.label[node]], 400);

  /** One line a stack; of a difference with two numbers, second and first population, as difffolded. */
  function collapsed(view) {
    const sides = sidesOf(view);
    const line = (node) => {
      const names = pk.tree.path(view.tree, node).map((n) => frame(view.tree, n).replace(/[;\s]+/g, " "));
      return `${names.join(";")} ${sides.map(({ self }) => Math.round(self[node])).join(" ")}\n`;
    };
    return stacks(view, sides).map(line).join("");
  }

  /** https://www.speedscope.app/file-format-schema.json, a profile for each side. */
  function speedscope(view) {
    const { tree, options } = view;
    const sides = sidesOf(view);
    const titles = view.difference ? [options.titles[1], options.titles[0]] : [options.whole];
    const place = new Map();
    const frames = [];
    const number = (node) => {
      const file = tree.file?.[node] >= 0 ? tree.strings[tree.file[node]] : "";
      const key = `${tree.label[node]}\n${file}`;
      if (!place.has(key)) {
        place.set(key, frames.length);
        frames.push({ name: frame(tree, node), ...(file ? { file: pk.format.text(file, 400) } : {}) });
      }
      return place.get(key);
    };
    const profiles = sides.map((side, k) => {
      const nodes = stacks(view, [side]);
      const weights = nodes.map((node) => Math.round(side.self[node]));
      return {
        type: "sampled",
        name: titles[k],
        unit: tree.unit === "ns" ? "nanoseconds" : "none",
        startValue: 0,
        endValue: weights.reduce((sum, weight) => sum + weight, 0),
        samples: nodes.map((node) => pk.tree.path(tree, node).map(number)),
        weights,
      };
    });
    return JSON.stringify({
      $schema: "https://www.speedscope.app/file-format-schema.json",
      exporter: "perfkit",
      name: document.title,
      activeProfileIndex: 0,
      shared: { frames },
      profiles,
    });
  }

  const MAKERS = { svg, png, collapsed, speedscope };

  /** Saves the present view of `view` in a format. */
  async function save(view, format) {
    const made = await MAKERS[format](view);
    const [, , type] = FORMATS.find(([name]) => name === format);
    const url = URL.createObjectURL(made instanceof Blob ? made : new Blob([made], { type }));
    const name = `${document.title}-${view.options.name || "flame"}`.replace(/[^\w.-]+/g, "_");
    const link = pk.dom.el("a", { href: url, download: `${name.slice(0, 80)}${SUFFIX[format]}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  /** A menu that saves `view`. */
  function menu(view) {
    const choices = [["", "Export…"], ...FORMATS.map(([name, text]) => [name, text])];
    const select = pk.dom.select("Export the present view", choices, "", (format) => {
      select.value = "";
      if (format) save(view, format);
    });
    return select;
  }

  pk.flame.exports = { menu, ...MAKERS };
}
