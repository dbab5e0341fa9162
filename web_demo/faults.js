/** What goes wrong in TF.js, in sentences that say what a person can do. */

// As V8, SpiderMonkey, JavaScriptCore, Emscripten and WebGL put it.
const MEMORY = /out of memory|allocation failed|typed array length|array size|enlarge memory|\bOOM\b|unable to (create|allocate)/i;

export const LOST = "The graphics processor was taken away from this page. Try again, or let another one compute.";

/** Fetch a part of the page that is asked for late; says so where there is no network, or the site has changed since. */
export async function fetched(what, part) {
  return part.catch(() => {
    throw new Error(`${what} could not be fetched. See whether there is a network, and reload the page.`);
  });
}

/** Of a fault of any kind: the one that says that there is not enough memory, or the fault itself. */
export function memoryOr(fault) {
  if (!(fault instanceof RangeError) && !MEMORY.test(fault.message)) return fault;
  return new Error(
    `There is not enough memory for this model and this picture (${fault.message}). ` +
      "Close other pages, or choose a smaller model.",
  );
}

/** Of a fault while a model was being loaded. */
export function loadingOf(name, fault) {
  const said = memoryOr(fault);
  if (said !== fault) return said;
  const what = fault.message.replace(/\.$/, "");
  return new Error(`The model ${name} could not be loaded: ${what}. Reload the page, or choose another model.`);
}
