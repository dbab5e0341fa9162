/** The page without a network: the worker that keeps its files, where a browser allows one. */

/**
 * Let the worker of the site keep the page, and tell it which version this page is.
 *
 * Addresses without https, but for those of this machine, have no workers, and private windows of some browsers neither:
 * there the page works as long as there is a network.
 *
 * @param {string} version  what models.json says
 */
export function workOffline(version) {
  const { serviceWorker } = navigator;
  if (!serviceWorker || !version) return;
  const tell = () => serviceWorker.controller?.postMessage({ version });
  serviceWorker.addEventListener("controllerchange", tell);
  tell();
  serviceWorker.register(new URL("sw.js", document.baseURI), { updateViaCache: "none" }).catch(() => {});
}
