"""Teaching on the page in a real Chromium: what it says, keeps, forgets, refuses, and that nothing leaves the device."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from tests import tiny_tfjs
from tests.demo_page import ARGUMENTS, CHROMIUMS, browser, choose, encoded, opened, serving  # noqa: F401  a fixture
from tests.teaching_page import (
    add_class,
    download,
    give,
    listen_for_uploads,
    of_class,
    taught_answer,
    teach,
    train,
)

TINTS = {"red": (200, 40, 40), "green": (40, 180, 40), "blue": (40, 40, 210)}
PICTURES = 8
TENSORS = "globalThis._tfengine.memory().numTensors"


def tinted(name: str, number: int) -> bytes:
    """A noisy picture of one color, 40 x 40 px, as PNG."""
    noise = np.random.default_rng([number, *TINTS[name]]).normal(0, 30, (40, 40, 3))
    return encoded(np.clip(noise + TINTS[name], 0, 255).astype(np.uint8))


def tints(names: tuple[str, ...] = tuple(TINTS), count: int = PICTURES) -> dict[str, list[bytes]]:
    return {name: [tinted(name, number) for number in range(count)] for name in names}


def shuffled(classes: dict[str, list[bytes]]) -> dict[str, list[bytes]]:
    """The same pictures under the same names, of which none says anything about a picture."""
    pictures = [each for group in classes.values() for each in group]
    order = np.random.default_rng(0).permutation(len(pictures))
    groups = np.split(order, len(classes))
    return {name: [pictures[i] for i in group] for name, group in zip(classes, groups, strict=True)}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tfjs.shared_result(tmp_path_factory.getbasetemp())[0]


@pytest.fixture(scope="module")
def url(out: Path) -> Iterator[str]:
    with serving(out) as url:
        yield url


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:  # noqa: F811
    with opened(browser, url) as page:
        sent = listen_for_uploads(page)
        yield page
        assert sent == [], "pictures never leave the device"


def reopened(page: Page) -> None:
    page.reload()
    expect(page.locator("#headline")).to_have_text("Draw something, or choose a picture.", timeout=30_000)
    page.get_by_test_id("teach-kept").locator("summary").click()
    expect(page.get_by_test_id("teach-open-file")).to_be_enabled()


def complaint(page: Page) -> str:
    error = page.get_by_test_id("error")
    expect(error).to_be_visible()
    expect(page.get_by_test_id("teach-status")).to_have_text(error.inner_text())
    return error.inner_text()


def test_three_classes_are_taught_tried_and_told_from_chance(page: Page) -> None:
    accuracy, held_out = teach(page, tints())
    assert held_out == 3 * 2, "a fifth of eight, rounded, of each class"
    assert accuracy == 1.0
    expect(page.get_by_test_id("teach-accuracy")).to_contain_text("6 of 6 pictures held out, 18 to learn from")
    before = page.evaluate(TENSORS)
    for name in TINTS:
        choose(page, f"new-{name}.png", tinted(name, 99))
        expect(page.get_by_test_id("answer")).to_have_attribute("data-source", f"new-{name}.png")
        expect(page.get_by_test_id("teach-answer")).to_have_attribute("data-label", name)
        assert taught_answer(page)[1] > 0.6
    # Beside the model's own answer, which stays.
    assert page.get_by_test_id("answer").get_attribute("data-label") in tiny_tfjs.LABELS
    of_class(page, "teach-class-name", 2).fill("azure")
    expect(page.get_by_test_id("teach-answer")).to_have_attribute("data-label", "azure")
    for _ in range(3):
        page.get_by_test_id("teach-remove-class").nth(add_class(page, "more", [])).click()
        train(page)
    assert page.evaluate(TENSORS) == before, "no tensor is left behind"


def test_shuffled_labels_are_not_learned(page: Page) -> None:
    accuracy, held_out = teach(page, shuffled(tints(count=16)))
    assert held_out == 9
    assert accuracy <= 0.7


def test_the_same_pictures_make_the_same_head_on_another_backend(page: Page, tmp_path: Path) -> None:
    teach(page, tints(("red", "blue")))
    first = download(page, tmp_path / "first.json")
    train(page)
    assert download(page, tmp_path / "again.json") == first
    page.get_by_test_id("backend-select").select_option("cpu")
    train(page)
    other = download(page, tmp_path / "cpu.json")
    assert (first["backend"], other["backend"]) == ("wasm", "cpu")
    mine, theirs = (np.frombuffer(base64.b64decode(each["head"]["kernel"]), "<f4") for each in (first, other))
    assert np.abs(mine - theirs).max() <= 1e-3 * np.abs(mine).max()
    assert not first["pictures"], "the pictures are private unless the box is ticked"


def test_what_is_lacking_is_said(page: Page) -> None:
    page.get_by_test_id("teach-train").click()
    expect(page.get_by_test_id("error")).to_have_text("There are no classes. Add at least 2 classes before training.")
    add_class(page, "red", tints()["red"])
    page.get_by_test_id("teach-train").click()
    assert complaint(page) == "There is one class. Add at least 2 classes before training."
    add_class(page, "blue", tints()["blue"][:3])
    page.get_by_test_id("teach-train").click()
    assert complaint(page) == "blue has 3 pictures. Give each class at least 4 before training."
    of_class(page, "teach-class-name", 1).fill("")
    page.get_by_test_id("teach-train").click()
    assert complaint(page) == "Class 2 has no name. Name it before training."
    of_class(page, "teach-class-name", 1).fill("red")
    page.get_by_test_id("teach-train").click()
    assert complaint(page) == "Two classes are called red. Give each a name of its own."
    expect(page.get_by_test_id("teach-accuracy")).to_be_hidden()
    of_class(page, "teach-class-name", 1).fill("blue")
    give(page, 1, [("fourth.png", tinted("blue", 50))])
    expect(of_class(page, "teach-count", 1)).to_have_text("4 pictures")
    train(page)
    expect(page.get_by_test_id("error")).to_be_hidden()


def test_files_that_teach_nothing_are_said_and_the_others_taken(page: Page) -> None:
    index = add_class(page, "red", tints()["red"][:2])
    give(page, index, [("letter.png", b"not a picture"), ("third.png", tinted("red", 30))])
    expect(of_class(page, "teach-count", index)).to_have_text("3 pictures")
    said = "letter.png is not a picture that this browser can read. Try a JPEG or a PNG."
    assert complaint(page).startswith(said)
    give(page, index, [("copy.png", tints()["red"][0])])
    expect(page.get_by_test_id("error")).to_have_text("copy.png is in red already. Add another picture.")
    expect(of_class(page, "teach-count", index)).to_have_text("3 pictures")


def test_pictures_come_by_drop_from_the_canvas_and_from_other_parts_of_the_page(page: Page) -> None:
    index = add_class(page, "red", [])
    of_class(page, "teach-take", index).click()
    assert complaint(page) == "There is no picture above. Draw something or choose a picture first."
    box = page.get_by_test_id("canvas").bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 160)
    page.mouse.up()
    of_class(page, "teach-take", index).click()
    expect(of_class(page, "teach-count", index)).to_have_text("1 picture")
    transfer = page.evaluate_handle(
        """(bytes) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
          return transfer;
        }""",
        list(tinted("red", 1)),
    )
    of_class(page, "teach-class", index).dispatch_event("drop", {"dataTransfer": transfer})
    expect(of_class(page, "teach-count", index)).to_have_text("2 pictures")
    expect(page.get_by_test_id("answer")).to_have_attribute("data-source", "the drawing")
    page.evaluate(
        """async (bytes) => {
          const loaded = performance.getEntriesByType("resource").map(({ name }) => name);
          const { addPicture } = await import(loaded.find((name) => /teach-[A-Z0-9]+\\.js$/.test(name)));
          await addPicture(0, new Blob([new Uint8Array(bytes)]));
        }""",
        list(tinted("red", 2)),
    )
    expect(of_class(page, "teach-count", index)).to_have_text("3 pictures")


def test_what_is_saved_in_the_browser_survives_a_reload(page: Page) -> None:
    accuracy, _ = teach(page, tints())
    choose(page, "new.png", tinted("green", 99))
    expect(page.get_by_test_id("teach-answer")).to_have_attribute("data-label", "green")
    said = taught_answer(page)
    page.get_by_test_id("teach-kept").locator("summary").click()
    page.get_by_test_id("teach-name").fill("Tints")
    page.get_by_test_id("teach-save").click()
    expect(page.get_by_test_id("teach-status")).to_have_text("Tints is saved in this browser.")
    reopened(page)
    expect(page.get_by_test_id("teach-saved")).to_have_value("Tints")
    page.get_by_test_id("teach-open").click()
    expect(of_class(page, "teach-count", 2)).to_have_text("8 pictures")
    assert float(page.get_by_test_id("teach-accuracy").get_attribute("data-accuracy")) == accuracy
    choose(page, "new.png", tinted("green", 99))
    expect(page.get_by_test_id("teach-answer")).to_have_attribute("data-label", "green")
    assert taught_answer(page)[1] == pytest.approx(said[1], abs=1e-6)
    # Its pictures came along: it goes on from there.
    assert train(page)[0] == accuracy
    page.get_by_test_id("teach-delete").click()
    expect(page.get_by_test_id("teach-open")).to_be_disabled()


def test_a_downloaded_file_is_opened_again_and_others_are_refused(page: Page, tmp_path: Path) -> None:
    teach(page, tints(("red", "green")))
    told = download(page, tmp_path / "taught.json", with_pictures=True)
    assert [len([each for each in told["pictures"] if each["label"] == i]) for i in range(2)] == [8, 8]
    reopened(page)
    bad = {
        "letter.json": "{}",
        "other.json": json.dumps({**told, "created_from": "sha256:another"}),
        "nan.json": json.dumps({**told, "head": {**told["head"], "bias": "AADAfwAAwH8="}}),
        "narrow.json": json.dumps({**told, "head": {**told["head"], "width": 3}}),
    }
    expected = {
        "letter.json": "letter.json is not a file of taught classes. Choose one that this page wrote.",
        "other.json": "other.json was taught on another model (tiny). Open it on the page of that model.",
        "nan.json": "nan.json is damaged (a number that is none). Download it again from the page that wrote it.",
        "narrow.json": "narrow.json is damaged",
    }
    for name, text in bad.items():
        files = {"name": name, "mimeType": "application/json", "buffer": text.encode()}
        page.get_by_test_id("teach-open-file").set_input_files(files)
        expect(page.get_by_test_id("error")).to_contain_text(expected[name])
        assert page.get_by_test_id("teach-class").count() == 0
    page.get_by_test_id("teach-open-file").set_input_files(tmp_path / "taught.json")
    expect(of_class(page, "teach-count", 1)).to_have_text("8 pictures")
    expect(page.get_by_test_id("error")).to_be_hidden()
    choose(page, "new.png", tinted("green", 99))
    expect(page.get_by_test_id("teach-answer")).to_have_attribute("data-label", "green")


def test_a_head_is_forgotten_with_its_classes_and_stale_with_its_pictures(page: Page) -> None:
    teach(page, tints(("red", "green")))
    page.get_by_test_id("teach-picture").first.click()
    expect(of_class(page, "teach-count", 0)).to_have_text("7 pictures")
    expect(page.get_by_test_id("teach-accuracy")).to_contain_text("train again")
    page.get_by_test_id("teach-kept").locator("summary").click()
    page.get_by_test_id("teach-download").click()
    assert complaint(page).startswith("The pictures have changed since the training.")
    of_class(page, "teach-remove-class", 0).click()
    expect(page.get_by_test_id("teach-accuracy")).to_be_hidden()
    expect(of_class(page, "teach-class-name", 0)).to_have_value("green")
    page.get_by_test_id("teach-download").click()
    assert complaint(page) == "There is nothing to download yet. Train first."


def test_it_is_used_with_the_keyboard_alone(page: Page) -> None:
    page.get_by_test_id("teach-add-class").focus()
    page.keyboard.press("Enter")
    expect(of_class(page, "teach-class-name", 0)).to_be_focused()
    page.keyboard.type("up")
    page.keyboard.press("Tab")
    expect(of_class(page, "teach-file-input", 0)).to_be_focused()
    give(page, 0, [(f"{i}.png", tinted("red", i)) for i in range(4)])
    expect(of_class(page, "teach-count", 0)).to_have_text("4 pictures")
    page.get_by_test_id("teach-picture").nth(1).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("teach-picture").nth(1)).to_be_focused()
    expect(of_class(page, "teach-count", 0)).to_have_text("3 pictures")
    add_class(page, "down", tints()["blue"])
    give(page, 0, [("again.png", tinted("red", 9))])
    expect(of_class(page, "teach-count", 0)).to_have_text("4 pictures")
    page.get_by_test_id("teach-train").focus()
    page.keyboard.press("Space")
    expect(page.get_by_test_id("teach-status")).to_contain_text("Trained in")
    expect(page.get_by_test_id("teach-train")).to_be_focused()


def test_nothing_is_wider_than_the_window(page: Page) -> None:
    add_class(page, "a name that is as long as a name can be, which is sixty of them", tints()["red"])
    add_class(page, "blue", tints()["blue"])
    train(page)
    page.get_by_test_id("teach-kept").locator("summary").click()
    for width in (320, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_an_upload_would_be_noticed_and_no_other_host_can_be_asked(browser: Browser, url: str) -> None:  # noqa: F811
    page = browser.new_page()
    sent = listen_for_uploads(page)
    page.goto(url)
    page.evaluate("fetch('models.json', { method: 'POST', body: 'picture' }).then(() => 0)")
    assert sent == [f"POST {url}models.json"]
    refused = page.evaluate("fetch('http://127.0.0.1:9/').then(() => '', (fault) => fault.message)")
    blocked = page.evaluate(
        """() => new Promise((resolve) => {
          document.addEventListener("securitypolicyviolation", ({ effectiveDirective }) => resolve(effectiveDirective));
          fetch("http://127.0.0.1:9/").catch(() => {});
        })"""
    )
    page.close()
    assert refused and blocked == "connect-src"


def test_a_full_storage_is_said(page: Page, url: str) -> None:
    teach(page, tints(("red", "green")))
    page.get_by_test_id("teach-kept").locator("summary").click()
    devtools = page.context.new_cdp_session(page)
    devtools.send("Storage.overrideQuotaForOrigin", {"origin": url.rstrip("/"), "quotaSize": 1})
    page.get_by_test_id("teach-save").click()
    expect(page.get_by_test_id("error")).to_contain_text("This browser has no room left for it.")
    devtools.send("Storage.overrideQuotaForOrigin", {"origin": url.rstrip("/")})
    page.get_by_test_id("teach-save").click()
    expect(page.get_by_test_id("error")).to_be_hidden()
    expect(page.get_by_test_id("teach-status")).to_contain_text("is saved in this browser.")


def test_a_storage_that_is_forbidden_is_said(browser: Browser, url: str, tmp_path: Path) -> None:  # noqa: F811
    """The browser's own setting: sites may keep nothing."""
    (tmp_path / "Default").mkdir()
    settings = {"profile": {"default_content_setting_values": {"cookies": 2}}}
    (tmp_path / "Default" / "Preferences").write_text(json.dumps(settings))
    path = next(each for each in [os.environ.get("CUTPOINT_CHROMIUM"), *map(shutil.which, CHROMIUMS)] if each)
    context = browser.browser_type.launch_persistent_context(tmp_path, executable_path=path, args=list(ARGUMENTS))
    page = context.new_page()
    page.goto(url)
    page.get_by_test_id("teach-add-class").click()
    page.get_by_test_id("teach-kept").locator("summary").click()
    page.get_by_test_id("teach-save").click()
    expect(page.get_by_test_id("error")).to_contain_text("This browser does not let the page keep anything")
    context.close()


def test_a_model_without_features_says_so(browser: Browser, out: Path, tmp_path: Path) -> None:  # noqa: F811
    shutil.copytree(out / "artifacts", tmp_path / "artifacts")
    card = tmp_path / "artifacts" / "tfjs-float32" / "card.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "cut": []}))
    with serving(tmp_path) as url, opened(browser, url) as page:
        expect(page.locator("#teach-unable")).to_be_visible()
        expect(page.get_by_test_id("teach-add-class")).to_be_hidden()
