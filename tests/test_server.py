"""The server of the page: what it gives out, what it does not, and how it starts and stops."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporters.contract import Backbone, Card, Output, Resize
from exporters.errors import InputError
from pipeline import server

SERVE = """
import pathlib, sys
from pipeline.server import serve
serve(pathlib.Path(sys.argv[1]), port=0, ready=lambda url: print(url, flush=True))
print("stopped", flush=True)
"""


def write_artifact(out: Path, name: str) -> Path:
    folder = out / "artifacts" / name
    folder.mkdir(parents=True)
    (folder / "model.json").write_text('{"format": "graph-model"}', encoding="utf-8")
    (folder / "group1-shard1of1.bin").write_bytes(b"\0\1\2\3")
    head = Output("label", "linear", "multiclass", (2,), labels=("a", "b"))
    Card(name, Resize(8, 8), (head,), Backbone("tiny", None, "", "tf"), ("last",)).write(folder / "card.json")
    return folder


def write_onnx(out: Path, name: str) -> None:
    folder = write_artifact(out, name)
    (folder / "model.json").unlink()
    (folder / "model.onnx").write_bytes(b"\0\1")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("result")
    for name in ("tfjs-uint8", "tfjs-float16", "tfjs-float32", "tfjs-float32-batch1"):
        folder = write_artifact(out, name)
    write_onnx(out, "onnx-float16")
    (folder / "link.json").symlink_to("/etc/hostname")
    (folder / "notes.py").write_text("secret", encoding="utf-8")
    (out / "artifacts" / "linked").symlink_to(folder, target_is_directory=True)
    for secret in ("artifacts/onnx-float32/model.onnx", "golden/images.npz", "report.json", "artifacts/loose.json"):
        (out / secret).parent.mkdir(parents=True, exist_ok=True)
        (out / secret).write_text('{"secret": true}', encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def port(out: Path) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(out)], stdout=subprocess.PIPE, text=True)
    try:
        yield int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\n", process.stdout.readline())[1])
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "stopped\n"
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def get(port: int, path: str, method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
    """Ask for exactly this path: http.client, unlike other clients, leaves `..` in it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html"),
        ("/index.html", "text/html"),
        ("/page.js", "text/javascript"),
        ("/predict.js", "text/javascript"),
        ("/style.css", "text/css"),
        ("/icon.svg", "image/svg+xml"),
        ("/tfjs-backend-wasm-simd.wasm", "application/wasm"),
        ("/models.json", "application/json"),
        ("/artifacts/tfjs-float32/model.json", "application/json"),
        ("/artifacts/tfjs-float32/group1-shard1of1.bin", "application/octet-stream"),
        ("/artifacts/onnx-float16/model.onnx", "application/octet-stream"),
        ("/parity/ort-wasm-simd-threaded.wasm", "application/wasm"),
        ("/parity/ort-wasm-simd-threaded.mjs", "text/javascript"),
        ("/parity/litert_wasm_internal.js", "text/javascript"),
        ("/sw.js", "text/javascript"),
    ],
)
def test_files_of_page_and_artifacts_are_given_out(port: int, path: str, media_type: str) -> None:
    response, body = get(port, path)
    assert response.status == 200 and body
    assert response.headers["Content-Type"].split(";")[0] == media_type
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Permissions-Policy"] == "camera=(self)"
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "unsafe-inline" not in policy and "http" not in policy
    assert get(port, path, "HEAD")[0].status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../report.json",
        "/artifacts/../report.json",
        "/artifacts/tfjs-float32/../../report.json",
        "/artifacts/tfjs-float32/..%2f..%2freport.json",
        "/artifacts/tfjs-float32/%2e%2e/%2e%2e/report.json",
        "/artifacts/tfjs-float32/..%5c..%5creport.json",
        "//etc/hostname",
        "/%2fetc/hostname",
        "/artifacts//etc/hostname",
        "/artifacts/tfjs-float32-batch1/link.json",
        "/artifacts/tfjs-float32-batch1/notes.py",
        "/artifacts/linked/model.json",
        "/artifacts/loose.json",
        "/artifacts/onnx-float32/model.onnx",
        "/artifacts/tfjs-float32/",
        "/artifacts/",
        "/golden/images.npz",
        "/report.json",
        "/runner.mjs",
        "/parity/parity.html",
        "/parity/../runner.mjs",
        "/index.html%00.css",
        "/.cutpoint-site.json",
    ],
)
def test_nothing_else_is_given_out(port: int, path: str) -> None:
    response, body = get(port, path)
    assert response.status == 404
    assert b"secret" not in body
    assert "Content-Security-Policy" in response.headers


def test_isolation_is_asked_for_where_browsers_take_notice_of_it(port: int) -> None:
    for host, isolated in ((f"localhost:{port}", True), (f"127.0.0.1:{port}", True), (f"192.168.0.7:{port}", False)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/", headers={"Host": host})
        headers = connection.getresponse().headers
        connection.close()
        assert ("Cross-Origin-Opener-Policy" in headers) == isolated, host
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_only_reading_is_allowed(port: int) -> None:
    assert get(port, "/", "POST")[0].status == 405


def test_models_are_listed_in_the_order_of_precisions_with_their_cards(port: int) -> None:
    listed = json.loads(get(port, "/models.json")[1])["models"]
    names = [each["name"] for each in listed]
    assert names == ["tfjs-float32", "tfjs-float16", "tfjs-uint8", "tfjs-float32-batch1"]
    assert listed[0]["model"] == "artifacts/tfjs-float32/model.json"
    assert listed[0]["card"]["outputs"][0]["labels"] == ["a", "b"]
    assert listed[0]["size_bytes"] > 4


def test_a_taken_port_is_said(out: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"Port {number} of 127.0.0.1 is taken"):
            server.serve(out, port=number)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 99999), ("no.such.host.invalid", 0)])
def test_an_impossible_address_is_said(out: Path, host: str, port: int) -> None:
    with pytest.raises(InputError, match="cannot be listened on"):
        server.serve(out, host=host, port=port)


def test_a_folder_without_models_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=r"holds no TF\.js model"):
            server.serve(folder, port=0)


def test_without_the_built_page_it_says_how_to_build_it(out: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(server, "PAGE", tmp_path)
    with pytest.raises(InputError) as caught:
        server.site_files(out)
    assert caught.value.mend == "make setup"


def test_a_site_is_written_whole_and_again(out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    names = server.write_site(out, folder)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {*names, ".cutpoint-site.json"}
    assert {"index.html", "models.json", "artifacts/tfjs-uint8/group1-shard1of1.bin"} <= found
    assert "runner.mjs" not in found and not any("onnx-float32" in name or "link" in name for name in found)
    assert {"sw.js", "artifacts/onnx-float16/model.onnx", "parity/litert_wasm_internal.wasm"} <= found
    assert json.loads((folder / "models.json").read_text(encoding="utf-8"))["models"][0]["name"] == "tfjs-float32"
    assert server.write_site(out, folder) == names


def test_a_site_overwrites_nothing_of_others(out: Path, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"holds something that is not of the site: index\.html"):
        server.write_site(out, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    site = tmp_path / "site"
    server.write_site(out, site)
    (site / "artifacts" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"artifacts/mine\.txt"):
        server.write_site(out, site)


def test_a_site_needs_a_folder(out: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "site"):
        with pytest.raises(InputError):
            server.write_site(out, folder)
