/** How far the loading of a model is: counted while its bytes arrive, shown as a bar and in kilobytes. */

/**
 * Read the files of an artifact over the network, telling of every piece that arrives.
 *
 * @param {string | URL} url  where model.json is; the other files are beside it
 * @param {(bytes: number) => void} arrived  called with the size of each piece
 * @returns {(path: string) => Promise<ArrayBuffer>}
 */
export function fetchCounted(url, arrived) {
  return async (path) => {
    const response = await fetch(new URL(path, url));
    if (!response.ok) throw new Error(`${path} was not served: ${response.status} ${response.statusText}`);
    const pieces = [];
    const reader = response.body.getReader();
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      pieces.push(read.value);
      arrived(read.value.byteLength);
    }
    return new Blob(pieces).arrayBuffer();
  };
}

/**
 * Show how far a loading is.
 *
 * @param {HTMLElement} place  holds a `progress` and an `output`; hidden while nothing is loaded
 * @returns {{began: (bytes: number) => void, arrived: (bytes: number) => void, ended: () => void}}
 */
export function startLoading(place) {
  const [bar, words] = [place.querySelector("progress"), place.querySelector("output")];
  let [loaded, all] = [0, 0];
  function show() {
    bar.value = Math.min(loaded, all);
    words.textContent = `${kilobytes(bar.value)} of ${kilobytes(all)} kB`;
  }
  return {
    began(bytes) {
      [loaded, all, bar.max] = [0, bytes, bytes];
      show();
      place.hidden = false;
    },
    arrived(bytes) {
      loaded += bytes;
      show();
    },
    ended() {
      place.hidden = true;
    },
  };
}

const kilobytes = (bytes) => Math.ceil(bytes / 1e3).toLocaleString("en");
