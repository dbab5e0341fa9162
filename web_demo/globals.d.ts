/** What the build and the server write in front of the code: see build.mjs and pipeline/offline.py. */

declare const LITERT_VERSION: string;
declare const SITE: { version: string; first: string[]; files: Record<string, string> };
