// Builds report_templates/assets/plotly-perfkit.min.js: plotly.js with only the traces that
// the report draws (scatter, bar, heatmap). Run it with `npm ci --ignore-scripts && npm run build`.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import esbuild from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const assets = join(here, "..", "..", "report_templates", "assets");
const output = join(assets, "plotly-perfkit.min.js");
const read = (...parts) => readFileSync(join(here, "node_modules", ...parts), "utf8");

// The licence header of Plotly's own bundles, with the name of this one.
const [header] = read("plotly.js/dist/plotly-basic.min.js").match(/^\/\*\*[^]*?\*\//);

const { metafile } = await esbuild.build({
  stdin: {
    contents: `
      const Plotly = require("plotly.js/lib/core");
      Plotly.register([require("plotly.js/lib/bar"), require("plotly.js/lib/heatmap")]);
      window.Plotly = Plotly;`,
    resolveDir: here,
  },
  outfile: output,
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2020",
  charset: "utf8",
  define: { global: "window" },
  loader: { ".css": "empty" }, // the style of MapLibre, whose traces are left out
  banner: { js: header.replace("(basic - minified)", "(perfkit: scatter, bar, heatmap)") },
  legalComments: "none", // all licences are in the file written below
  metafile: true,
  logLevel: "warning",
});

// The report's Content-Security-Policy has no 'unsafe-eval', and the code lies inside <script>.
const code = readFileSync(output, "utf8");
const unfit = code.match(/\beval\(|\bnew Function\b|(?<![.\w])Function\(|<\/[sS]cript|<!--|\r/);
if (unfit) {
  console.error(`unfit for the report: …${code.slice(unfit.index - 60, unfit.index + 60)}…`);
  process.exit(1);
}

// What went in, and under which licence.
const modules = Object.keys(metafile.inputs).map(
  (path) => path.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1],
);
const licences = [...new Set(modules.filter(Boolean))].sort().map((name) => {
  const { version, license } = JSON.parse(read(name, "package.json"));
  const file = readdirSync(join(here, "node_modules", name)).find((f) => /^licen[cs]e/i.test(f));
  const text = file ? read(name, file).trim() : "(the package has no licence file)";
  return `${name} ${version} (${license})\n${"-".repeat(40)}\n${text}\n`;
});
writeFileSync(join(assets, "plotly-perfkit.LICENSES.txt"), licences.join("\n\n"));
console.log(`${relative(process.cwd(), output)}: ${Buffer.byteLength(code)} bytes`);
