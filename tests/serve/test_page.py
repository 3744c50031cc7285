"""The server's page in headless Chromium: with mouse, keyboard, drag and drop, and on a phone."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")
pytest.importorskip("playwright")
from playwright.sync_api import Browser, Page, expect, sync_playwright
from web_server import Running, photo, running

from mindyolo_ext.serve.limits import Limits

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
# Chromium's messages on a refused image, and on tests that read pixels
EXPECTED = ("error: Failed to load resource: the server responded with", "warning: Canvas2D")
expect.set_options(timeout=20_000)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # no sandbox: it does not start as root
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(limits=Limits(body_mib=0.5)) as found:
        yield found


@pytest.fixture
def page(browser: Browser, server: Running) -> Iterator[Page]:
    """The page on a phone, loaded; it must log no error."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    context.set_default_timeout(20_000)
    found, complaints = context.new_page(), []
    found.on("pageerror", lambda error: complaints.append(str(error)))
    found.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    found.goto(f"http://127.0.0.1:{server.port}/")
    found.locator("body[data-ready]").wait_for()
    yield found
    context.close()
    complaints = [text for text in complaints if not text.startswith(EXPECTED)]
    assert complaints == []


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "street.png"
    path.write_bytes(photo(60, 90))
    return path


def test_an_image_is_chosen_by_keyboard_and_its_boxes_are_shown(page: Page, image: Path):
    expect(page.locator("#about")).to_have_text("stand_in, 3 classes, input 64 × 32")
    page.keyboard.press("Tab")
    expect(page.locator("#choose")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(image)
    expect(page.locator("#status")).to_have_text(re.compile(r"^3 boxes in \d+ ms$"))
    expect(page.locator("#rows tr")).to_have_text(["cat0.90", "dog0.60", "traffic light0.35"])
    expect(page.get_by_label("Image with 3 boxes: cat, dog, traffic light")).to_be_visible()


def test_boxes_are_drawn_over_the_image(page: Page, image: Path):
    page.set_input_files("#file", image)
    expect(page.locator("#rows tr")).to_have_count(3)
    size, before = page.evaluate(
        "() => [[stage.width, stage.height], [...pen.getImageData(0, 0, 90, 60).data]]"
    )
    assert size == [90, 60]
    page.locator("#rows tr").nth(1).focus()
    assert page.evaluate("() => [...pen.getImageData(0, 0, 90, 60).data]") != before


def test_settings_ask_again(page: Page, image: Path, server: Running):
    page.set_input_files("#file", image)
    expect(page.locator("#rows tr")).to_have_count(3)
    page.locator("#conf").focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#rows tr")).to_have_count(2)
    assert abs(server.detector.calls[-1][1].conf_thres - 0.4) < 1e-9
    page.locator("#classes").select_option("dog")
    expect(page.locator("#rows tr")).to_have_text(["dog0.60"])
    expect(page.locator("#count")).to_have_text("1 box")


def test_an_image_is_dropped_anywhere(page: Page):
    page.evaluate(
        """(bytes) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "a.png", { type: "image/png" }));
          document.body.dispatchEvent(
            new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        list(photo()),
    )
    expect(page.locator("#rows tr")).to_have_count(3)


def test_results_are_saved(page: Page, image: Path):
    page.set_input_files("#file", image)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save image").click()
    assert saved.value.suggested_filename == "street_boxes.jpg"
    assert Path(saved.value.path()).read_bytes()[:2] == b"\xff\xd8"
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save boxes (JSON)").click()
    assert saved.value.suggested_filename == "street.json"
    assert len(json.loads(Path(saved.value.path()).read_text())["detections"]) == 3


def test_an_image_that_the_browser_cannot_show_comes_back_drawn(page: Page, tmp_path: Path):
    (tmp_path / "scan.tif").write_bytes(photo(suffix=".tif"))
    page.set_input_files("#file", tmp_path / "scan.tif")
    expect(page.locator("#rows tr")).to_have_count(3)
    assert page.evaluate("() => [picture.image.width, picture.image.height]") == [40, 24]


def test_what_is_wrong_is_said(page: Page, tmp_path: Path):
    (tmp_path / "no.png").write_bytes(b"hello")
    page.set_input_files("#file", tmp_path / "no.png")
    expect(page.locator("#status.bad")).to_contain_text("wanted a readable image")
    (tmp_path / "big.png").write_bytes(bytes(600_000))
    page.set_input_files("#file", tmp_path / "big.png")
    expect(page.locator("#status.bad")).to_have_text(
        "The file has 600000 bytes; the limit is 524288."
    )


def test_nothing_is_wider_than_the_phone(page: Page, image: Path):
    page.set_input_files("#file", image)
    expect(page.locator("#rows tr")).to_have_count(3)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
