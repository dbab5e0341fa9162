/** A worker that says whether there is a WebGPU adapter. In the page itself Chromium would warn on the console of there being none. */

navigator.gpu.requestAdapter().then((adapter) => postMessage(adapter !== null), () => postMessage(false));
