/** The button of the self-test: what stands behind it is fetched when it is first pressed. */

/** @type {(id: string) => any} */
const byId = (id) => document.getElementById(id);
const panel = () => import("./self_test/panel.js");

/**
 * Let the button run the self-test.
 *
 * @param {() => {models: import("./engine.js").Listed[], golden: string | undefined, backend: string}} asked  what of:
 *   the listed artifacts, the path of the published manifest, if any, and the backend that is chosen
 */
export function startSelfTest(asked) {
  const button = byId("self-test");
  const [error, verdict] = ["self-test-error", "self-test-verdict"].map(byId);
  button.disabled = false;
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    // What an earlier run found says nothing of this one, from the first moment on.
    delete verdict.dataset.verdict;
    verdict.textContent = "";
    try {
      const { run } = await panel();
      await run(asked());
    } catch (fault) {
      error.textContent = `The self-test could not be loaded (${fault.message}). Reload the page.`;
      error.hidden = false;
    } finally {
      button.removeAttribute("aria-disabled");
    }
  });
  byId("self-test-download").addEventListener("click", async () => (await panel()).download());
  byId("self-test-copy").addEventListener("click", async () => (await panel()).copy());
}
