"use strict";
// Draws the bars of a flame graph with Plotly: one bar trace and one text trace.
{
  const pk = (window.perfkit ??= {});
  const ROW = 18;
  const FONT_SIZE = 11.5;
  const LEAST_LABEL = 30;
  const PAD = 4;

  // Fills that carry text. The hues are those of Okabe and Ito, which colour-blind readers can tell
  // apart, lightened for dark text and darkened for light text.
  const HUES = {
    light: {
      text: "#1b2127",
      blue: "#94c4e6",
      orange: "#f6c667",
      green: "#86d1b6",
      purple: "#dfb1cd",
      vermilion: "#f0a482",
      yellow: "#efe58c",
      sky: "#bfe3f5",
      grey: "#d2d8dd",
      above: "#e6eaed",
      more: "#b4bcc4",
      dim: "#e3e7ea",
      hit: "#ffb000",
      hitText: "#1b2127",
    },
    dark: {
      text: "#eef1f3",
      blue: "#2c6491",
      orange: "#85600f",
      green: "#1d7457",
      purple: "#7a4a69",
      vermilion: "#964520",
      yellow: "#69651a",
      sky: "#2d6f7f",
      grey: "#4a525a",
      above: "#31373d",
      more: "#5f6870",
      dim: "#2b3035",
      hit: "#e09a00",
      hitText: "#14171a",
    },
  };
  const CATEGORY_HUE = {
    server: "blue",
    client: "purple",
    database: "orange",
    messaging: "yellow",
    tool: "green",
    internal: "grey",
    app: "orange",
    library: "blue",
    stdlib: "sky",
    native: "purple",
    thread: "grey",
  };
  const MODULE_HUES = ["blue", "orange", "green", "purple", "sky", "vermilion", "yellow"];
  // From less to more; the middle is neutral.
  const DIFFERENCE = {
    light: ["#2f7fbf", "#7fb2da", "#bdd7ec", "#dfe4e8", "#f5cfb8", "#eda27b", "#dd6b35"],
    dark: ["#3f8fd0", "#30699a", "#2b4a66", "#454c53", "#6b4634", "#99542c", "#d06a2c"],
  };

  const hues = () => HUES[pk.theme.current()];

  const differences = () => DIFFERENCE[pk.theme.current()];

  const categoryHue = (name) => (Object.hasOwn(CATEGORY_HUE, name) ? CATEGORY_HUE[name] : "grey");

  /** A hue for a text: always the same one. */
  function hueOf(text) {
    let hash = 0;
    for (let i = 0; i < text.length; i++) hash = (Math.imul(hash, 31) + text.charCodeAt(i)) | 0;
    return MODULE_HUES[(hash >>> 0) % MODULE_HUES.length];
  }

  /** A function from node to colour. */
  function painter(tree, colour, difference) {
    const shades = hues();
    if (colour === "difference" && difference) {
      const scale = differences();
      return (node) => scale[difference.step(node) + 3];
    }
    if (colour === "module" && tree.module) {
      const known = new Map();
      return (node) => {
        const module = tree.module[node];
        if (!known.has(module)) known.set(module, shades[hueOf(tree.strings[module] ?? "")]);
        return known.get(module);
      };
    }
    const fills = tree.categories.map((name) => shades[categoryHue(name)]);
    return (node) => fills[tree.category[node]] ?? shades.grey;
  }

  const canvas = document.createElement("canvas").getContext("2d");
  const widths = new Map();

  function font() {
    return getComputedStyle(document.body).fontFamily;
  }

  function measured(text) {
    let width = widths.get(text);
    if (width === undefined) {
      width = canvas.measureText(text).width;
      if (widths.size > 20_000) widths.clear();
      widths.set(text, width);
    }
    return width;
  }

  /** The text, or as much of its start as fits into `room` pixels. */
  function fitted(text, room) {
    if (measured(text) <= room) return text;
    let low = 0;
    let high = text.length;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (canvas.measureText(`${text.slice(0, middle)}…`).width <= room) low = middle;
      else high = middle - 1;
    }
    return low > 1 ? `${text.slice(0, low).trimEnd()}…` : "";
  }

  /**
   * Draws `bars` into a Plotly element. `look` has: `name(i)` of a bar, `paint(node)`, `hits` (a byte
   * for each node, or null), `orientation`. Returns Plotly's promise.
   */
  function draw(element, bars, look, width) {
    const shades = hues();
    const family = font();
    canvas.font = `${FONT_SIZE}px ${family}`;
    const n = bars.length;
    const y = new Float64Array(n);
    const extent = new Float64Array(n);
    const fill = new Array(n);
    const label = { x: [], y: [], text: [], colour: [] };
    for (let row = 0; row < bars.rows; row++) {
      for (let i = bars.rowStart[row]; i < bars.rowStart[row + 1]; i++) {
        const wide = bars.x1[i] - bars.x0[i];
        y[i] = row;
        extent[i] = Math.max(wide - 1, Math.min(wide, 0.6));
        const shade = fillOf(bars, i, look, shades);
        fill[i] = shade.fill;
        if (wide < LEAST_LABEL) continue;
        const text = fitted(pk.format.text(look.name(i), 300), wide - 2 * PAD);
        if (!text) continue;
        label.x.push(bars.x0[i] + PAD);
        label.y.push(row);
        label.text.push(pk.format.plotly(text));
        label.colour.push(shade.colour);
      }
    }
    const quiet = { hoverinfo: "skip", showlegend: false };
    const boxes = {
      ...quiet,
      type: "bar",
      orientation: "h",
      base: bars.x0,
      x: extent,
      y,
      width: (ROW - 1) / ROW,
      textposition: "none",
      marker: { color: fill, line: { width: 0 } },
    };
    const names = {
      ...quiet,
      type: "scatter",
      mode: "text",
      x: label.x,
      y: label.y,
      text: label.text,
      textposition: "middle right",
      textfont: { family, size: FONT_SIZE, color: label.colour },
    };
    const height = bars.rows * ROW;
    const range = [bars.rows - 0.5, -0.5];
    const layout = {
      width,
      height,
      margin: { l: 0, r: 0, t: 0, b: 0 },
      xaxis: { visible: false, fixedrange: true, range: [0, width] },
      yaxis: {
        visible: false,
        fixedrange: true,
        range: look.orientation === "flame" ? range.reverse() : range,
      },
      barmode: "overlay",
      hovermode: false,
      showlegend: false,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
    };
    return Plotly.react(element, [boxes, names], layout, { staticPlot: true });
  }

  /** The fill of a bar and the colour of its text. */
  function fillOf(bars, i, look, shades) {
    if (isHit(bars, i, look.hits)) return { fill: shades.hit, colour: shades.hitText };
    return { fill: colour(bars, i, look, shades), colour: shades.text };
  }

  /** The text that a bar of this width has room for. */
  function label(text, width) {
    canvas.font = `${FONT_SIZE}px ${font()}`;
    return width < LEAST_LABEL ? "" : fitted(text, width - 2 * PAD);
  }

  const isHit = (bars, i, hits) =>
    hits && bars.kind[i] !== pk.flame.MORE && bars.node[i] >= 0 && hits[bars.node[i]];

  function colour(bars, i, look, shades) {
    if (bars.kind[i] === pk.flame.MORE) return look.hits ? shades.dim : shades.more;
    if (bars.kind[i] === pk.flame.ABOVE || bars.node[i] < 0) return shades.above;
    return look.hits ? shades.dim : look.paint(bars.node[i]);
  }

  pk.flame ??= {};
  Object.assign(pk.flame, { ROW, hues, differences, categoryHue, painter, draw, fillOf, label });
}
