"""What a browser keeps of a site: which files, by which content, and the version that says that something has changed."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from pipeline import server
from pipeline.offline import digests, first_files, version_of
from tests.commands import cutpoint
from tests.test_server import write_artifact, write_onnx


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for name in ("tfjs-float32", "tfjs-uint8"):
        write_artifact(tmp_path / "out", name)
    write_onnx(tmp_path / "out", "onnx-float32")
    return tmp_path / "out"


def site_of(worker: bytes) -> dict:
    """The constant in front of the worker."""
    text = worker.decode("utf-8")
    assert text.startswith("const SITE = ")
    return json.loads(text[len("const SITE = ") : text.index(";\n")])


def test_the_worker_names_every_file_of_the_site_with_its_content(out: Path, tmp_path: Path) -> None:
    names = server.write_site(out, tmp_path / "site")
    site = site_of((tmp_path / "site" / "sw.js").read_bytes())
    assert set(site["files"]) == set(names) - {"sw.js"}
    for name, digest in site["files"].items():
        assert hashlib.sha256((tmp_path / "site" / name).read_bytes()).hexdigest() == digest
    listing = json.loads((tmp_path / "site" / "models.json").read_text(encoding="utf-8"))
    assert listing["version"] == site["version"]
    assert [each["name"] for each in listing["others"]] == ["onnx-float32"]


def test_at_first_the_page_and_the_artifact_it_opens_with_are_kept(out: Path) -> None:
    files = {**server.site_files(out), "golden/files/0000.png": b"", "golden/images.npz": b""}
    first = first_files(files, "tfjs-float32")
    assert {"index.html", "page.js", "tfjs-backend-wasm-simd.wasm", "golden/files/0000.png"} < set(first)
    assert "artifacts/tfjs-float32/group1-shard1of1.bin" in first
    assert not any(name.startswith(("parity/", "artifacts/tfjs-uint8", "artifacts/onnx", "golden/i")) for name in first)


def test_the_version_changes_with_any_byte_and_with_nothing_else(out: Path) -> None:
    def version() -> str:
        return json.loads(server.whole_site(out)["models.json"])["version"]

    before = version()
    assert version() == before
    shard = out / "artifacts" / "tfjs-uint8" / "group1-shard1of1.bin"
    # The same length, as a model that was trained again has it.
    shard.write_bytes(shard.read_bytes()[::-1])
    after = version()
    assert after != before
    shard.write_bytes(shard.read_bytes()[::-1])
    assert version() == before


def test_digests_are_of_files_and_contents_alike(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    assert digests({"x": tmp_path / "a"}) == digests({"x": b"one"}) == {"x": hashlib.sha256(b"one").hexdigest()}
    assert version_of({"x": "1"}) != version_of({"y": "1"})


def test_the_command_says_how_large_the_site_is(out: Path, tmp_path: Path) -> None:
    sizes = []
    for options in ([], ["--slim"]):
        folder = tmp_path / f"site{len(options)}"
        outcome = cutpoint("site", out, "--out", folder, *options)
        assert outcome.exit_code == 0
        sizes.append(
            float(re.search(r", ([\d.]+) MB; 0 test pictures published", outcome.stdout.replace("\n", " "))[1])
        )
        assert (folder / "parity").is_dir() == (not options)
    assert sizes[0] - sizes[1] > 20
