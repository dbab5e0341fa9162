"""Hands files to the pages of a Chromium session: a server on this machine alone, under addresses nobody can guess."""

from __future__ import annotations

import http.server
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

JAVASCRIPT = Path(__file__).parents[1] / "javascript"
PARITY = JAVASCRIPT / "parity"
HOST = "127.0.0.1"
HEADERS = {
    # Together they isolate the page, without which WebAssembly has no threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    # A page may fetch from this server alone; blobs are the workers of threads.
    "Content-Security-Policy": "default-src 'none'; script-src 'self' blob: 'wasm-unsafe-eval'; "
    "connect-src 'self' blob:; worker-src 'self' blob:; img-src blob: data:; base-uri 'none'; form-action 'none'",
    "Cache-Control": "no-store",
}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
}


class PageServer:
    """Serves the code of the pages, and to each page its own files, from a thread of its own."""

    def __init__(self) -> None:
        self._shelves: dict[str, Mapping[str, Path | bytes]] = {}
        self._server = http.server.ThreadingHTTPServer((HOST, 0), _handler(self.find))
        self._server.daemon_threads = True
        self.origin = f"http://{HOST}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="cutpoint-pages", daemon=True)
        self._thread.start()

    def add(self, files: Mapping[str, Path | bytes]) -> str:
        """Serve files, and the pages' code beside them; returns the address of the folder, which ends in a slash.

        Args:
            files: path -> a file or its contents; looked up at each request, so that it may change meanwhile.
        """
        token = secrets.token_urlsafe(16)
        self._shelves[token] = files
        return f"{self.origin}/{token}/"

    def remove(self, address: str) -> None:
        """Stop serving what `add` gave this address."""
        self._shelves.pop(urlsplit(address).path.strip("/"), None)

    def close(self) -> None:
        """Stop the server and its thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def find(self, path: str) -> bytes | None:
        """Return what lies at a path such as `/<token>/parity.html`, or None."""
        token, _, name = unquote(urlsplit(path).path)[1:].partition("/")
        files = self._shelves.get(token)
        if files is None:
            return None
        found = files.get(name)
        if found is None and "/" not in name:
            # TF.js's wasm lies where the demo page has it.
            found = (JAVASCRIPT if name.startswith("tfjs-backend-wasm") else PARITY) / name
        if isinstance(found, Path):
            return found.read_bytes() if found.is_file() else None
        return found


def _handler(find) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            # Another name for this machine in the header is a page from elsewhere that reaches for it.
            ours = self.headers.get("Host") == f"{HOST}:{self.server.server_address[1]}"
            body = find(self.path) if ours else None
            self.send_response(404 if body is None else 200)
            for name, value in HEADERS.items():
                self.send_header(name, value)
            self.send_header(
                "Content-Type", TYPES.get(Path(urlsplit(self.path).path).suffix, "application/octet-stream")
            )
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            """Say nothing: a page reports itself what it could not fetch."""

    return Handler
