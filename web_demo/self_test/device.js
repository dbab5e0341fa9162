/** What a browser tells of itself and of the device, so that who reads a self-test's result knows where it is from. */

import { getThreadsCount } from "@tensorflow/tfjs-backend-wasm";

/** Families of browsers, by what they call themselves; the first that fits. @type {[string, RegExp][]} */
const KINDS = [
  ["firefox", /Firefox\/([\d.]+)/], ["chromium", /Chrom(?:e|ium)\/([\d.]+)/], ["safari", /Version\/([\d.]+).*Safari/],
];
const HINTS = ["platformVersion", "model", "architecture"];

/** A brand that is there only to keep pages from relying on the list. */
const isBrand = ({ brand }) => !/not.?a.?brand/i.test(brand.replace(/[^a-z]/gi, "."));

/**
 * @param {string} backend  what TF.js computes with
 * @returns {Promise<{kind: string, browser: string, platform: string, user_agent: string, cores: number | null,
 *   memory_gb: number | null, cross_origin_isolated: boolean, threads: number | null, gpu: string | null}>}  `kind`:
 *   chromium, firefox, safari or browser; `memory_gb` as browsers round it
 */
export async function describeDevice(backend) {
  /** @type {any} what not every browser has */
  const extras = navigator;
  const agent = navigator.userAgent;
  const [kind, pattern] = KINDS.find(([, each]) => each.test(agent)) ?? /** @type {[string, null]} */ (["browser", null]);
  const named = (extras.userAgentData?.brands ?? []).filter(isBrand);
  const brand = named.find((each) => each.brand !== "Chromium") ?? named[0];
  const told = await extras.userAgentData?.getHighEntropyValues?.(HINTS).catch(() => null);
  const system = extras.userAgentData?.platform || navigator.platform;
  const platform = [system, told?.platformVersion, told?.architecture, told?.model];
  return {
    kind,
    browser: brand ? `${brand.brand} ${brand.version}` : `${kind} ${pattern?.exec(agent)[1] ?? ""}`.trim(),
    platform: platform.filter(Boolean).join(" ") || "unknown",
    user_agent: agent,
    cores: navigator.hardwareConcurrency ?? null,
    memory_gb: extras.deviceMemory ?? null,
    cross_origin_isolated: globalThis.crossOriginIsolated === true,
    threads: backend === "wasm" ? getThreadsCount() : null,
    gpu: backend === "webgl" ? rendererOf() : null,
  };
}

function rendererOf() {
  const context = new OffscreenCanvas(1, 1).getContext("webgl2") ?? new OffscreenCanvas(1, 1).getContext("webgl");
  const extension = context?.getExtension("WEBGL_debug_renderer_info");
  const found = extension ? context.getParameter(extension.UNMASKED_RENDERER_WEBGL) : null;
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return found;
}
