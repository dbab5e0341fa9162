"""Artifacts and pictures in a real Chromium: the same answers as in Python, and every way in which a browser can fail."""

from __future__ import annotations

import asyncio
import http.server
import io
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from PIL import Image, ImageCms

from exporters import pixels
from exporters.contract import Resize, parse_formats
from exporters.errors import InputError, NotVerifiedError, ParityError
from exporters.export import export_artifact
from exporters.runners import chromium_session, static_batch
from exporters.runners.chromium import (
    ChromiumSession,
    LitertWebRunner,
    OnnxWebRunner,
    TfjsChromiumRunner,
    close_session,
    session,
)
from exporters.runners.onnx import OnnxRunner
from exporters.runners.tfjs import TfjsRunner
from exporters.runners.tflite import TfliteRunner
from tests import small_models

# Skips this file too where CUTPOINT_NO_BROWSER says that there is no browser.
from tests.demo_page import encoded
from tests.pictures import picture

RUNNERS = {
    "tfjs": (TfjsChromiumRunner, TfjsRunner),
    "onnx": (OnnxWebRunner, OnnxRunner),
    "tflite": (LitertWebRunner, TfliteRunner),
}
VERSIONS = {"tfjs": "4.22.0", "onnx": "1.30.0", "tflite": "2.5.3"}
CASES = [(str(name), "wasm") for name in small_models.EVERY_ARTIFACT] + [("tfjs-float32", "webgl")]
RESIZE = Resize(32, 24)
WITHOUT_WEBGL = ("--disable-gpu", "--disable-software-rasterizer")


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def artifacts(session_folder: Path) -> Path:
    return small_models.result_folder(session_folder) / "artifacts"


@pytest.fixture(scope="module", autouse=True)
def one_browser() -> Iterator[None]:
    yield
    close_session()


@pytest.fixture
def copy_of(artifacts: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Makes a copy of an artifact, for a test to damage."""
    return lambda name: Path(shutil.copytree(artifacts / name, tmp_path / name))


def only_file(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def in_page(running: ChromiumSession, page: Any, script: str) -> Any:
    """Run a script in an open page, where it is a statement rather than a function to be called."""
    return running.wait(page._page.evaluate(f"(async () => {{ {script} }})()"))


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_the_answers_are_those_of_the_python_runtime(name: str, backend: str, artifacts: Path) -> None:
    one, kind = small_models.small(), name.split("-")[0]
    assert np.abs(one.reference["apple"] - one.reference["zebra"]).max() > 0.5, "a swap would not be seen"
    web, native = RUNNERS[kind]
    images = one.images[:60] if backend == "webgl" else one.images
    with web(artifacts / name, backend=backend) as runner, native(artifacts / name) as expected:
        facts = (runner.version, runner.backend, runner.where)
        assert facts == (VERSIONS[kind], backend, session().name)
        assert (runner.input_name, runner.input_dtype, runner.input_scale) == (
            ("image", expected.input_dtype, expected.input_scale)
        )
        assert runner.output_names == expected.output_names
        answers, wanted = runner.predict(images), expected.predict(images)
        times = runner.time_one(images[0], 5)
    assert len(times) == 5 and min(times) > 0
    assert set(answers) == {"apple", "zebra"}
    # What onnxruntime rounds on the way in int8 differs from processor to processor; weights alone do not round.
    tolerance = 0.1 if name == "onnx-int8" else 1e-5
    for head, values in answers.items():
        assert values.dtype == np.float32 and values.shape == (len(images), 5)
        np.testing.assert_allclose(values, wanted[head], rtol=0, atol=tolerance)
        truth = one.reference[head][: len(images)]
        assert np.mean(values.argmax(1) == truth.argmax(1)) >= 0.95


@pytest.mark.parametrize("name", ["tflite-float32-batch1", "tflite-int8-float_io", "onnx-float32-batch1"])
def test_variants_answer_as_in_python(name: str, session_folder: Path, tmp_path: Path) -> None:
    one, (parsed,) = small_models.small(), parse_formats([name])
    saved = small_models.inference_models(session_folder).saved_model(parsed.precision)
    folder = export_artifact(parsed, saved, one.card, tmp_path, one.calibration_images)
    web, native = RUNNERS[parsed.format]
    with web(folder) as runner, native(folder) as expected:
        assert runner.input_dtype == expected.input_dtype == "float32"
        answers, wanted = runner.predict(one.images[:40]), expected.predict(one.images[:40])
    assert set(answers) == set(wanted) == {"apple", "zebra"}
    for head, values in answers.items():
        # A step of whole numbers, where LiteRT rounds otherwise than its build for the web.
        np.testing.assert_allclose(values, wanted[head], rtol=0, atol=1e-5 if parsed.precision == "float32" else 0.02)


@pytest.mark.parametrize("name", ["tfjs-float32", "onnx-float32", "tflite-int8"])
def test_any_number_of_images_of_either_type(name: str, artifacts: Path) -> None:
    images = small_models.small().images
    with RUNNERS[name.split("-")[0]][0](artifacts / name) as runner:
        every = runner.predict(images[:33])
        for count in (0, 1, 17):
            some = runner.predict(images[:count])
            assert len(some["apple"]) == count
            np.testing.assert_allclose(some["apple"].reshape(count, 5), every["apple"][:count], rtol=0, atol=1e-6)
        as_float = runner.predict(images[:33].astype(np.float32))
        with pytest.raises(InputError, match="Images of shape"):
            runner.predict(images[0])
    for head in every:
        np.testing.assert_array_equal(as_float[head], every[head])


def test_many_images_go_to_the_page_in_several_parts(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = small_models.small().images[:100]
    with OnnxWebRunner(artifacts / "onnx-float32") as runner:
        whole = runner.predict(images)
        monkeypatch.setattr("exporters.runners.chromium_artifact.CHUNK_BYTES", 32 * images[0].nbytes)
        parts = runner.predict(images)
    np.testing.assert_array_equal(parts["zebra"], whole["zebra"])


def test_an_onnx_model_with_a_fixed_batch_answers_every_image(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("onnx-float32")
    with OnnxWebRunner(folder) as runner:
        expected = runner.predict(small_models.small().images[:10])
    model = onnx.load(folder / "model.onnx")
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, folder / "model.onnx")
    with OnnxWebRunner(folder) as runner:
        answers = runner.predict(small_models.small().images[:10])
        assert len(runner.time_one(small_models.small().images[0], 2)) == 2
    for head, values in expected.items():
        np.testing.assert_allclose(answers[head], values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["tfjs-float32", "onnx-float32"])
def test_threads_change_no_answer(name: str, artifacts: Path) -> None:
    images, web = small_models.small().images[:20], RUNNERS[name.split("-")[0]][0]
    with web(artifacts / name, threads=2) as two, web(artifacts / name) as one:
        np.testing.assert_allclose(two.predict(images)["apple"], one.predict(images)["apple"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic_int8", "int8"])
def test_a_static_batch_changes_the_batch_and_nothing_else(precision: str, artifacts: Path) -> None:
    model = (artifacts / f"tflite-{precision}" / "model.tflite").read_bytes()
    static = static_batch.with_static_batch(model)
    before, after = np.frombuffer(model, np.uint8), np.frombuffer(static, np.uint8)
    changed = np.flatnonzero(before != after)
    # -1 as int32 became 1: in each place four bytes of 255 gave way to 1, 0, 0, 0.
    assert len(changed) and len(changed) % 4 == 0
    assert set(before[changed]) == {255} and after[changed].reshape(-1, 4).tolist() == [[1, 0, 0, 0]] * (
        len(changed) // 4
    )
    old, new = (schema.ModelT.InitFromObj(schema.Model.GetRootAs(each)) for each in (model, static))
    assert [vars(each) for each in old.operatorCodes] == [vars(each) for each in new.operatorCodes]
    for first, second in zip(old.buffers, new.buffers, strict=True):
        np.testing.assert_array_equal(first.data, second.data)
    for first, second in zip(old.subgraphs[0].operators, new.subgraphs[0].operators, strict=True):
        assert first.opcodeIndex == second.opcodeIndex
        np.testing.assert_array_equal(first.inputs, second.inputs)
        np.testing.assert_array_equal(first.outputs, second.outputs)
    signatures = [tensor.shapeSignature for tensor in new.subgraphs[0].tensors if tensor.shapeSignature is not None]
    assert signatures and not any((each == -1).any() for each in signatures)
    assert static_batch.with_static_batch(static) == static
    images = small_models.small().images[:50]
    with TfliteRunner(model) as free, TfliteRunner(static) as fixed:
        expected, answers = free.predict(images), fixed.predict(images)
    for head in expected:
        np.testing.assert_array_equal(answers[head], expected[head])


def test_the_signature_read_from_the_file_is_litert_s(artifacts: Path) -> None:
    for precision in ("float32", "int8"):
        model = (artifacts / f"tflite-{precision}" / "model.tflite").read_bytes()
        found = static_batch.read_signature(model)
        with TfliteRunner(model) as runner:
            details = {**runner._signature.get_input_details(), **runner._signature.get_output_details()}
        assert (found.key, set(found.inputs), set(found.outputs)) == ("serving_default", {"image"}, {"apple", "zebra"})
        for name, facts in {**found.inputs, **found.outputs}.items():
            assert facts.dtype == np.dtype(details[name]["dtype"]).name
            if facts.dtype != "float32":
                assert (facts.scale, facts.zero_point) == pytest.approx(details[name]["quantization"])


def test_a_free_axis_beside_the_batch_is_refused(artifacts: Path) -> None:
    model = bytearray((artifacts / "tflite-float32" / "model.tflite").read_bytes())
    tensor = schema.Model.GetRootAs(model).Subgraphs(0).Tensors(0)
    tensor.ShapeSignatureAsNumpy()[1] = -1
    with pytest.raises(ParityError, match=r"has the shape \[-1, -1, 32, 3\]"):
        static_batch.with_static_batch(bytes(model))


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def unknown_operator(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node[0].op_type, model.graph.node[0].domain = "Zigzag", "nowhere"
    model.opset_import.append(onnx.helper.make_opsetid("nowhere", 1))
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("name", "pattern", "damage", "words"),
    [
        ("tfjs-float32", "*.bin", shorten, "The weight files hold"),
        ("tfjs-float32", "*.bin", Path.unlink, "was not served: 404"),
        ("tfjs-float32", "model.json", Path.unlink, "model.json was not served: 404"),
        ("onnx-float32", "model.onnx", shorten, "protobuf parsing failed"),
        ("onnx-float32", "model.onnx", unknown_operator, "Zigzag"),
        ("onnx-float32", "model.onnx", Path.unlink, "model.onnx was not served: 404"),
        ("tflite-float32", "model.tflite", shorten, "cannot be read"),
        ("tflite-float32", "model.tflite", Path.unlink, "No such file"),
    ],
)
def test_a_damaged_artifact_fails_in_the_words_of_the_runtime(
    name: str, pattern: str, damage: Callable[[Path], object], words: str, copy_of: Callable[[str], Path]
) -> None:
    folder = copy_of(name)
    damage(only_file(folder, pattern))
    with pytest.raises(ParityError) as caught, RUNNERS[name.split("-")[0]][0](folder):
        pass
    assert words in caught.value.what
    assert str(folder) in caught.value.what or name == "tflite-float32"
    assert session().alive


def test_no_backend_stands_in_for_another(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for web in (TfjsChromiumRunner, OnnxWebRunner, LitertWebRunner):
        with pytest.raises(InputError, match="has no backend 'webgpu'"):
            web(artifacts / "tfjs-float32", backend="webgpu")
    monkeypatch.setattr(chromium_session, "ARGUMENTS", (*chromium_session.ARGUMENTS, *WITHOUT_WEBGL))
    with ChromiumSession() as blind:
        monkeypatch.setattr(chromium_session, "session", lambda: blind)
        with TfjsChromiumRunner(artifacts / "tfjs-float32") as runner:
            assert runner.backend == "wasm"
        with (
            pytest.raises(NotVerifiedError, match="backend 'webgl' cannot be started"),
            TfjsChromiumRunner(artifacts / "tfjs-float32", backend="webgl"),
        ):
            pass


def test_a_hung_page_and_a_crashed_one_are_said_and_the_next_one_answers() -> None:
    async def crash(page: Any) -> None:
        devtools = await page.context.new_cdp_session(page)
        await asyncio.wait([asyncio.ensure_future(devtools.send("Page.crash"))], timeout=1)

    with ChromiumSession(timeout_s=2) as running:
        with running.page({}, "The model") as page:
            in_page(running, page, "cutpoint.open = () => { for (;;); }")
            with pytest.raises(ParityError, match=r"The model failed in Chromium [\d.]+: no answer within 2 s"):
                page.call("open", {})
        with running.page({}, "The model") as page:
            in_page(running, page, "cutpoint.open = () => new Promise(() => {})")
            asked = threading.Timer(0.5, lambda: running.wait(crash(page._page)))
            asked.start()
            with pytest.raises(ParityError, match=r"The model failed in Chromium [\d.]+: the page crashed"):
                page.call("open", {})
            asked.join()
        with (
            running.page({}, "The model") as page,
            pytest.raises(ParityError, match=r"no\. The browser said: console says this"),
        ):
            in_page(running, page, "cutpoint.open = () => { console.error('console says this'); throw Error('no'); }")
            page.call("open", {})
        ((decoded, _),) = running.decode_files([encoded(picture())], RESIZE)
        np.testing.assert_array_equal(decoded, picture())


def test_the_session_is_shared_and_started_anew_when_its_browser_is_gone() -> None:
    first = session()
    assert session() is first and first.alive
    first.wait(first.browser.close())
    assert not first.alive
    second = session()
    assert second is not first and second.alive
    assert len(second.decode_files([encoded(picture())], RESIZE)) == 1


def test_it_answers_where_an_event_loop_runs() -> None:
    async def inside() -> int:
        return len(session().resize_pictures([picture()], RESIZE))

    assert asyncio.run(inside()) == 1


def test_a_missing_browser_is_said_with_its_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUTPOINT_CHROMIUM", str(tmp_path / "nowhere"))
    with pytest.raises(NotVerifiedError, match="nowhere cannot be started") as caught, ChromiumSession():
        pass
    assert "make setup-browser" in caught.value.mend
    monkeypatch.delenv("CUTPOINT_CHROMIUM")
    monkeypatch.setattr(chromium_session, "CHROMIUMS", ())
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    with pytest.raises(NotVerifiedError, match="Chromium cannot be started") as caught, ChromiumSession():
        pass
    assert "make setup-browser" in caught.value.mend


def test_a_missing_package_or_page_is_said_with_its_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "playwright.async_api", None)
        with pytest.raises(NotVerifiedError, match=r"playwright\.async_api") as caught, ChromiumSession():
            pass
        assert "cutpoint[browser]" in caught.value.mend
    monkeypatch.setattr(chromium_session, "PARITY", tmp_path)
    with pytest.raises(NotVerifiedError, match=r"parity\.html is missing") as caught, ChromiumSession():
        pass
    assert caught.value.mend == "make setup"


def test_no_other_server_and_no_other_file_can_be_reached(tmp_path: Path) -> None:
    reached: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reached.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    (tmp_path / "secret").write_text("secret")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{other.server_address[1]}"
        tries = f"""
          const tried = async (what) => what.then((a) => a.ok ? "reached" : "refused", () => "refused");
          const worker = (code) => new Promise((resolve, reject) => {{
            const made = new Worker(URL.createObjectURL(new Blob([code])));
            made.onmessage = resolve; made.onerror = reject; setTimeout(reject, 1000);
          }}).then(() => ({{ ok: true }}));
          const socket = new Promise((resolve, reject) => {{
            const made = new WebSocket("ws://{address}/socket"); made.onopen = resolve; made.onerror = reject;
          }}).then(() => ({{ ok: true }}));
          window.open("http://{address}/window");
          await new Promise((resolve) => setTimeout(resolve, 300));
          return Promise.all([
            tried(fetch("http://{address}/fetch")), tried(fetch("http://example.com/")), tried(socket),
            tried(worker("importScripts('http://{address}/script')\\npostMessage(1)")), tried(import("http://{address}/a.js")),
            tried(fetch("../parity.html")), tried(fetch("..%2F..%2Fsecret")), tried(fetch("file://{tmp_path}/secret")),
            tried(fetch("%2e%2e/runner.mjs")), tried(fetch("secret")), tried(fetch("parity.js")),
          ]);"""
        with session().page({"given": b"x"}, "The page") as page:
            answers = in_page(session(), page, tries)
            facts = in_page(session(), page, "return [isSecureContext, crossOriginIsolated]")
        other.shutdown()
    assert answers == ["refused"] * 10 + ["reached"]
    assert reached == []
    assert facts == [True, True]


def profile(swapped: bool) -> bytes:
    """An sRGB profile, or one that takes red for green: whoever heeds it gives other pixels."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {bytes(data[at : at + 4]): at for at in range(132, 132 + 12 * int.from_bytes(data[128:132], "big"), 12)}
    if swapped:
        red, green = (slice(tags[name] + 4, tags[name] + 12) for name in (b"rXYZ", b"gXYZ"))
        data[red], data[green] = data[green], data[red]
    return bytes(data)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


EVERY_ALPHA = np.array([[(c, 255 - c, c // 2, a) for c in range(256)] for a in range(256)], np.uint8)
EXACT = {
    "rgb.png": encoded(picture()),
    "one.png": encoded(picture(1, 1)),
    "grey.png": encoded(picture()[:, :, 0]),
    "sixteen.png": encoded(picture()[:, :, 0].astype(np.uint16) * 251),
    "every alpha.png": encoded(EVERY_ALPHA),
    "alpha.png": encoded(picture(64, 40, 4)),
    "profile.png": encoded(picture(), icc_profile=profile(False)),
    "swapped.png": encoded(picture(), icc_profile=profile(True)),
    "alpha and swapped.png": encoded(picture(64, 40, 4), icc_profile=profile(True)),
    "lossless.webp": encoded(picture(), "WEBP", lossless=True),
    "plain.bmp": encoded(picture(), "BMP"),
}
LOSSY = {
    "swapped.jpg": encoded(picture(), "JPEG", quality=95, icc_profile=profile(True)),
    **{f"turned {each}.jpg": encoded(picture(), "JPEG", quality=95, exif=turned(each)) for each in range(1, 9)},
    "halved colours.jpg": encoded(picture(157, 141), "JPEG", quality=80, subsampling=2),
    "photo.webp": encoded(picture(157, 141), "WEBP", quality=90),
}


def test_files_are_decoded_as_python_decodes_them() -> None:
    files = EXACT | LOSSY
    for (name, data), (decoded, resized) in zip(
        files.items(), session().decode_files(list(files.values()), RESIZE), strict=True
    ):
        expected = pixels.decode(data)
        assert decoded.dtype == np.uint8 and decoded.shape == expected.shape, name
        assert np.ptp(expected) > 0 or name == "one.png"
        difference = np.abs(decoded.astype(int) - expected).max()
        assert difference <= (0 if name in EXACT else 2), f"{name}: {difference} levels"
        np.testing.assert_array_equal(resized, pixels.resize(decoded, RESIZE), err_msg=name)
    # The profile that must not be heeded would be seen, and so would a turn that is not made.
    heeded = ImageCms.profileToProfile(Image.fromarray(picture()), _opened(profile(True)), _opened(profile(False)))
    assert np.abs(np.asarray(heeded).astype(int) - picture()).max() > 50
    assert pixels.decode(LOSSY["turned 6.jpg"]).shape[:2] == (57, 41)


def _opened(data: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(data))


@pytest.mark.parametrize("crop", pixels.CROPS)
def test_pictures_are_resized_to_pillow_s_pixels(crop: str) -> None:
    how = Resize(50, 31, crop=crop)
    given = [picture(*size) for size in ((57, 41), (9, 200), (640, 480), (1, 1), (50, 31))] * 5
    made = session().resize_pictures(given, how)
    for before, after in zip(given, made, strict=True):
        np.testing.assert_array_equal(after, pixels.resize(before, how))


def test_what_cannot_be_decoded_or_resized_is_said() -> None:
    good = encoded(picture())
    with pytest.raises(ParityError, match="File 18 cannot be decoded"):
        session().decode_files([good] * 17 + [good[:60]], RESIZE)
    with pytest.raises(ParityError, match="There is no crop 'wide'"):
        session().resize_pictures([picture()], Resize(8, 8, crop="wide"))
