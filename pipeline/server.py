"""The page over the TF.js artifacts of a result folder, served on this machine or written as static files."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import socket
import sys
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

import exporters
from exporters.contract import FORMATS
from exporters.errors import InputError
from pipeline.offline import WORKER, digests, first_files, version_of, worker
from pipeline.publishing import published_files, read_object, samples_listed, with_manifest
from pipeline.web_formats import in_order, library_files, other_models

PAGE = Path(exporters.__file__).parent / "javascript"
MODEL_FILE = FORMATS["tfjs"].file
SITE_RECORD = ".cutpoint-site.json"
LISTING = "models.json"
# Of the page's folder: the runner for Node, and the worker, which is given out with the list of files in front.
NOT_SERVED = ("runner.mjs", WORKER)
MEDIA_TYPES = {
    ".bin": "application/octet-stream",
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".npz": "application/octet-stream",
    ".onnx": "application/octet-stream",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".tflite": "application/octet-stream",
    ".txt": "text/plain",
    ".wasm": "application/wasm",
}
# The page carries the same policy in its head, for hosts that set no headers.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' blob: 'wasm-unsafe-eval'; worker-src 'self' blob:; style-src 'self'; "
        "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self)",
    "Cache-Control": "no-cache",
}


# Elsewhere, without https, browsers take no notice of the isolation, and say so on the console.
TRUSTED_HOSTS = ("127.0.0.1", "::1", "localhost")


def models(out: Path) -> list[dict[str, Any]]:
    """List the TF.js graph models of a result folder, as models.json holds them.

    Args:
        out: a result folder, the one that holds `artifacts`.

    Returns:
        `{"name", "model", "size_bytes", "card"}` each; `model` is a path relative to the page. The order is that of
        the precisions in FORMATS, and what is not named there comes after, by name.

    Raises:
        InputError: there is none.
    """
    listed = []
    for folder in _folders(out / "artifacts"):
        model, card = read_object(folder / MODEL_FILE), read_object(folder / "card.json")
        if model.get("format") == "graph-model" and card:
            size_bytes = sum(path.stat().st_size for path in _files(folder))
            url = f"artifacts/{folder.name}/{MODEL_FILE}"
            listed.append({"name": folder.name, "model": url, "size_bytes": size_bytes, "card": card})
    if not listed:
        raise InputError(
            f"{out} holds no TF.js model for the page.",
            "a result folder with artifacts/tfjs-*/model.json",
            "export with --formats tfjs, or name another folder",
        )
    return in_order(listed)


def site_files(out: Path, *, slim: bool = False) -> dict[str, Path | bytes]:
    """Map every file that the site gives out as it is, relative and with `/`, to that file or content; links are left out.

    Of the test pictures it gives those that `golden.publish` allows, see `pipeline.publishing`.

    Args:
        out: a result folder.
        slim: without the TFLite and ONNX artifacts and the libraries that run them.

    Raises:
        InputError: the page was not built, or `out` holds no TF.js model.
    """
    if not (PAGE / "index.html").is_file():
        raise InputError(f"The page is missing: {PAGE} holds no index.html.", "the built page", "make setup")
    files: dict[str, Path | bytes] = {path.name: path for path in _files(PAGE) if path.name not in NOT_SERVED}
    for model in [*models(out), *([] if slim else other_models(out))]:
        folder = out / "artifacts" / model["name"]
        files |= {f"artifacts/{model['name']}/{path.name}": path for path in _files(folder)}
    return with_manifest(out, files | ({} if slim else library_files(PAGE)) | published_files(out))


def whole_site(out: Path, *, slim: bool = False) -> dict[str, Path | bytes]:
    """Return `site_files`, and besides them the two that tell of the others: models.json, and the worker of the page.

    models.json holds `version`, which changes with any of the files; `models` and `others`, see `models` and
    `pipeline.web_formats.other_models`; and where the published test pictures are, see `samples_listed`.
    """
    files = site_files(out, slim=slim)
    found, listed = digests(files), models(out)
    version = version_of(found)
    listing = {
        "version": version,
        "models": listed,
        "others": [] if slim else other_models(out),
        **samples_listed(files),
    }
    files[LISTING] = (json.dumps(listing, ensure_ascii=False, indent=1) + "\n").encode()
    first = first_files(files, listed[0]["name"])
    source = (PAGE / WORKER).read_text(encoding="utf-8")
    return files | {WORKER: worker(source, version, digests(files), first)}


def application(out: Path, ready: Callable[[], None] = lambda: None) -> Starlette:
    """Build the web application; `ready` is called when it has started.

    What it answers is looked up in `site_files`, anew for each request, and never put together from the request.
    """

    async def answer(request: Request) -> Response:
        headers = _headers(request)
        try:
            name = request.path_params["path"] or "index.html"
            files = whole_site(out) if name in (LISTING, WORKER) else site_files(out)
            path = files.get(name)
        except InputError as fault:
            return PlainTextResponse(str(fault), 503, headers=headers)
        if path is None:
            return PlainTextResponse("There is no such file.", 404, headers=headers)
        if isinstance(path, bytes):
            return Response(path, media_type=MEDIA_TYPES[Path(name).suffix], headers=headers)
        return FileResponse(path, media_type=MEDIA_TYPES[path.suffix], headers=headers)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        ready()
        yield

    return Starlette(routes=[Route("/{path:path}", answer)], lifespan=lifespan)


def serve(
    out: Path,
    *,
    host: str = "127.0.0.1",
    port: int,
    open_browser: bool = False,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve the page and the TF.js artifacts of a result folder until Ctrl-C.

    Args:
        out: a result folder.
        host: the address to listen on; another than this machine's own is warned of on stderr.
        port: 0 takes a free one.
        open_browser: open the page in the user's browser.
        ready: called once with the page's address, when requests are answered.

    Raises:
        InputError: nothing to serve, or the address cannot be had.
    """
    site_files(out)
    with _listen(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listener.getsockname()[1]}/"
        if host not in TRUSTED_HOSTS:
            print(f"Warning: everyone who can reach {host} can open the page and its models.", file=sys.stderr)

        def started() -> None:
            ready(url)
            if open_browser:
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

        config = uvicorn.Config(
            application(out, started), log_level="warning", access_log=False, timeout_graceful_shutdown=2
        )
        # uvicorn stops in good order at Ctrl-C and then raises it again.
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def write_site(out: Path, folder: Path, *, slim: bool = False) -> list[str]:
    """Write the page and the artifacts that it answers with as static files for any host, at any path.

    Args:
        out: a result folder.
        folder: where to; made where it is missing. What an earlier call wrote there is replaced.
        slim: see `site_files`.

    Returns:
        The files written, relative to `folder`, sorted.

    Raises:
        InputError: nothing to publish, `folder` holds what no earlier call wrote, or it cannot be written.
    """
    files = whole_site(out, slim=slim)
    recorded = set(read_object(folder / SITE_RECORD).get("files", []))
    try:
        there = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
        found = {path.relative_to(folder).as_posix() for path in there}
        strangers = sorted(found - recorded - {SITE_RECORD})
        if strangers or (folder.exists() and not folder.is_dir()):
            raise InputError(
                f"{folder} holds something that is not of the site: {strangers[0] if strangers else folder.name}.",
                "an empty folder, a new one, or a site written before",
                "name another folder",
            )
        for name in found & recorded:
            (folder / name).unlink()
        names = sorted(files)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SITE_RECORD).write_text(json.dumps({"files": names}, indent=1) + "\n", encoding="utf-8")
        for name, path in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(path, bytes):
                (folder / name).write_bytes(path)
            else:
                shutil.copyfile(path, folder / name)
    except OSError as fault:
        raise InputError(f"The site cannot be written: {fault}.", "a folder to write to", "name another one") from fault
    return names


def _headers(request: Request) -> dict[str, str]:
    if request.url.scheme == "https" or request.url.hostname in TRUSTED_HOSTS:
        return HEADERS
    return {name: value for name, value in HEADERS.items() if name != "Cross-Origin-Opener-Policy"}


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as fault:
        taken = isinstance(fault, OSError) and fault.errno == errno.EADDRINUSE
        if taken:
            what, expected = f"Port {port} of {host} is taken.", "a free port"
        else:
            what, expected = (
                f"{host}, port {port}, cannot be listened on: {fault}.",
                "an address of this machine, a free port",
            )
        mend = "name another with --port, or --port 0 for any free one"
        raise InputError(what, expected, mend if taken else f"correct --host, or {mend}") from fault


def _folders(parent: Path) -> list[Path]:
    return [path for path in sorted(parent.glob("*")) if path.is_dir() and not path.is_symlink()]


def _files(folder: Path) -> list[Path]:
    paths = [path for path in sorted(folder.glob("*")) if path.suffix in MEDIA_TYPES]
    return [path for path in paths if path.is_file() and not path.is_symlink()]
