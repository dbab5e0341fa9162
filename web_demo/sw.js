/**
 * Keeps the page for when there is no network. The server writes the constant SITE in front: `version`, `first` (what is
 * kept at the first visit) and `files` (path -> sha256), so that another file of the site makes another worker.
 *
 * Who has a network gets what the server has, and who has none the last version that was fetched whole. A page says which
 * version it is; from then on it is given that version's files only, so an old model.json never meets new weights.
 */

/** @type {any} a ServiceWorkerGlobalScope, of which a page's types know nothing */
const scope = self;
const HERE = scope.registration.scope;
const OURS = `cutpoint ${HERE} `;
const PAGES = `${OURS}pages`;
const addressOf = (name) => new URL(name, HERE).href;
const keptOf = (version) => `${OURS}${version}`;

/** A path of the site, or null for what is not of it. */
function nameOf(address) {
  const { origin, pathname } = new URL(address);
  const here = new URL(HERE);
  if (origin !== here.origin || !pathname.startsWith(here.pathname)) return null;
  return decodeURIComponent(pathname.slice(here.pathname.length)) || "index.html";
}

async function isOf(name, bytes) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("") === SITE.files[name];
}

/** Keep a file, which must be the one that SITE names; gives whether it is. */
async function keep(name, response) {
  if (!response.ok || !(await isOf(name, await response.clone().arrayBuffer()))) return false;
  const cache = await caches.open(keptOf(SITE.version));
  await cache.put(addressOf(name), response);
  return true;
}

async function install() {
  const kept = await Promise.all(SITE.first.map(async (name) => keep(name, await fetch(addressOf(name), { cache: "no-cache" }))));
  if (kept.includes(false)) {
    await caches.delete(keptOf(SITE.version));
    throw new Error("The site is being changed. The next visit keeps it.");
  }
  await scope.skipWaiting();
}

/** Remember which version a page is of; in a cache, since a worker that has nothing to do is stopped. */
async function mark(page, version) {
  await (await caches.open(PAGES)).put(addressOf(`page/${page}`), new Response(version));
}

/** Take a page's word for its version, where that one is kept. */
async function welcome(page, version) {
  if (await caches.has(keptOf(version))) await mark(page, version);
}

async function versionOf(page) {
  const found = page && (await (await caches.open(PAGES)).match(addressOf(`page/${page}`)));
  return found ? found.text() : null;
}

/** Forget the pages that are closed, and the versions that nobody has open. */
async function tidy() {
  const open = new Set((await scope.clients.matchAll({ includeUncontrolled: true })).map(({ id }) => addressOf(`page/${id}`)));
  const used = new Set([PAGES, keptOf(SITE.version)]);
  const pages = await caches.open(PAGES);
  for (const request of await pages.keys()) {
    if (open.has(request.url)) used.add(keptOf(await (await pages.match(request)).text()));
    else await pages.delete(request);
  }
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith(OURS) && !used.has(name)).map((name) => caches.delete(name)));
}

const keptFile = async (name, version) => (await caches.open(keptOf(version))).match(addressOf(name));

/** The page itself: the server's, and the kept one where it cannot be reached. */
async function visit({ request, resultingClientId }, name) {
  try {
    return await fetch(request);
  } catch (fault) {
    const kept = await keptFile(name, SITE.version);
    if (!kept) throw fault;
    await mark(resultingClientId, SITE.version);
    return kept;
  }
}

/** A file for a page: of its own version, once that is known. */
async function give({ request, clientId }, name) {
  const version = await versionOf(clientId);
  if (version === null) return fetch(request).catch((fault) => forWorker(clientId, name, fault));
  const kept = await keptFile(name, version);
  if (kept) return kept;
  const response = await fetch(request);
  if (!response.ok || !Object.hasOwn(SITE.files, name)) return response;
  if (version === SITE.version && (await keep(name, response.clone()))) return response;
  return new Response(null, { status: 409, statusText: "The site has changed. Reload the page" });
}

/** A thread has a name of its own and asks for code alone, which a page of this version has already. */
async function forWorker(id, name, fault) {
  const client = await scope.clients.get(id);
  const kept = client?.type === "window" ? null : await keptFile(name, SITE.version);
  if (!kept) throw fault;
  return kept;
}

scope.addEventListener("install", (event) => event.waitUntil(install()));
scope.addEventListener("activate", (event) => event.waitUntil(tidy().then(() => scope.clients.claim())));
scope.addEventListener("message", (event) => event.waitUntil(welcome(event.source.id, event.data.version)));
scope.addEventListener("fetch", (event) => {
  const { request } = event;
  const name = nameOf(request.url);
  if (request.method !== "GET" || name === null || name === "sw.js") return;
  event.respondWith(request.mode === "navigate" ? visit(event, name) : give(event, name));
});
