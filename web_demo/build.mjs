/**
 * Builds everything that runs into exporters/javascript: the Node runner, the page and TF.js with its WebAssembly; and,
 * into the folder parity/ in it, the page of a verification, and the wasm of onnxruntime-web and LiteRT.js, which the
 * page fetches from there when it is asked to.
 *
 * The folder needs no node_modules, so that a Python wheel can carry it; what it held from an earlier build goes.
 */

import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "..", "exporters", "javascript");
const { resolve } = createRequire(import.meta.url);
const wasm = join(dirname(resolve("@tensorflow/tfjs-backend-wasm/package.json")), "dist");
const onnx = join(here, "node_modules", "onnxruntime-web", "dist");
const litert = join(here, "node_modules", "@litertjs", "core");
// The folder in exporters/javascript, and what is copied into it. Each library's wasm is the one build of it that runs
// here: onnxruntime-web has a single one without WebGPU, LiteRT.js one for a thread alone.
const copied = [
  ...["predict.js", "columns.js", "explain.js", "pixels.js", "index.html", "style.css", "icon.svg", "adapter.js", "sw.js"].map((name) => ["", join(here, name)]),
  ...["", "-simd", "-threaded-simd"].map((kind) => ["", join(wasm, `tfjs-backend-wasm${kind}.wasm`)]),
  ["parity", join(here, "parity.html")],
  ...["mjs", "wasm"].map((suffix) => ["parity", join(onnx, `ort-wasm-simd-threaded.${suffix}`)]),
  ...["js", "wasm"].map((suffix) => ["parity", join(litert, "wasm", `litert_wasm_internal.${suffix}`)]),
];
const litertVersion = JSON.parse(await readFile(join(litert, "package.json"), "utf8")).version;

// TF.js asks for node-fetch and node's util only under a Node without fetch, which is older than the oldest we take.
const withoutNodeFetch = {
  name: "without-node-fetch",
  setup(plugins) {
    const filter = /^(node-fetch|crypto|string_decoder)$/;
    plugins.onResolve({ filter }, ({ path }) => ({ path, namespace: "empty" }));
    plugins.onLoad({ filter: /.*/, namespace: "empty" }, () => ({ contents: "export default {};" }));
  },
};

// The Emscripten glue of TF.js reads its .wasm with the CommonJS names, which a module does not have.
const commonJsNames = [
  'import { createRequire as cutpointRequire } from "node:module";',
  'import { fileURLToPath as cutpointPath } from "node:url";',
  "const require = cutpointRequire(import.meta.url);",
  "const __filename = cutpointPath(import.meta.url);",
  'const __dirname = cutpointPath(new URL(".", import.meta.url));',
].join("\n");

const common = {
  absWorkingDir: here,
  bundle: true,
  format: "esm",
  legalComments: "none",
  logLevel: "warning",
  mainFields: ["module", "main"],
  minify: true,
  outdir: out,
  plugins: [withoutNodeFetch],
  write: false,
};

const withRuntimes = {
  // Otherwise the glue of onnxruntime-web's wasm is bundled too, and its threads do not find it.
  conditions: ["onnxruntime-web-use-extern-wasm"],
  // LiteRT.js does not tell its version.
  define: { LITERT_VERSION: JSON.stringify(litertVersion) },
};

const bundles = [
  {
    entryPoints: { runner: "runner.mjs" },
    platform: "node",
    target: "node20",
    outExtension: { ".js": ".mjs" },
    banner: { js: commonJsNames },
  },
  {
    entryPoints: { page: "page.js" },
    platform: "browser",
    target: "es2022",
    splitting: true,
    chunkNames: "[name]-[hash]",
    ...withRuntimes,
  },
  {
    entryPoints: { "parity/parity": "parity.js" },
    platform: "browser",
    target: "es2022",
    splitting: true,
    chunkNames: "parity/[name]-[hash]",
    ...withRuntimes,
  },
];

/** Bundle the runner and the pages; gives `[name, bytes]` pairs, names relative to exporters/javascript. */
async function bundle() {
  const results = await Promise.all(bundles.map((each) => build({ ...common, ...each })));
  return results.flatMap(({ outputFiles }) => outputFiles.map((file) => [relative(out, file.path), file.contents]));
}

/** Write `files` into the folder where they differ, and take away what is not of this build. */
async function put(files) {
  for (const [name, contents] of files) {
    await mkdir(dirname(join(out, name)), { recursive: true });
    const old = await readFile(join(out, name)).catch(() => null);
    if (!old?.equals(contents)) await writeFile(join(out, name), contents);
  }
  const kept = new Set([...files.keys()].flatMap((name) => [name, dirname(name)]));
  const stale = (await readdir(out, { recursive: true })).filter((name) => !kept.has(name));
  await Promise.all(stale.map((name) => rm(join(out, name), { recursive: true, force: true })));
}

const texts = copied.map(async ([folder, path]) => [join(folder, basename(path)), await readFile(path)]);
const files = new Map([...(await Promise.all(texts)), ...(await bundle())]);
await put(files);
const sizes = [...files].map(([name, contents]) => [name, contents.length, gzipSync(contents).length]);
for (const [name, size, zipped] of sizes) console.log(`${name.padEnd(40)}${size} bytes, ${zipped} in gzip`);
console.log(`${"exporters/javascript".padEnd(40)}${sizes.reduce((sum, [, size]) => sum + size, 0)} bytes, `
  + `${sizes.reduce((sum, [, , zipped]) => sum + zipped, 0)} in gzip`);
