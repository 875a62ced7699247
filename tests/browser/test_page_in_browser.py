"""The page of a run in a browser: quiet, alone, legible on any screen, and on paper."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from devtools import Browser, open_browser

from apogee_batch.run.report import write_report

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (1280, 400)
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
MEASURE = """(() => {
  const shown = [...document.images].map(image => {
    const box = image.getBoundingClientRect();
    return {natural: image.naturalWidth, complete: image.complete, left: box.left, right: box.right,
            height: box.height, alt: image.alt};
  });
  const root = document.documentElement;
  const scroll = Math.max(root.scrollWidth, document.body.scrollWidth);
  return {images: shown, width: root.clientWidth, scroll};
})()"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium or Chrome is installed"),
]


@pytest.fixture(scope="module")
def page(finished_run: Path, labelled_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run, with spectra, in a folder without anything else."""
    run = tmp_path_factory.mktemp("browsed") / "run"
    shutil.copytree(finished_run, run)
    written = write_report(run, store=labelled_store).path
    alone = tmp_path_factory.mktemp("alone") / "page.html"
    alone.write_bytes(written.read_bytes())
    return alone


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with open_browser(PROGRAM, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def look(browser: Browser, page: Path, width: int) -> dict[str, Any]:
    """Open the page in a window of some width; return what is measured of it."""
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
    )
    browser.open(page.as_uri())
    return dict(browser.evaluate(MEASURE))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_console_is_silent_and_nothing_is_fetched(browser: Browser, page: Path, width: int) -> None:
    look(browser, page, width)
    told = browser.named("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    assert told == []
    addresses = [event["request"]["url"] for event in browser.named("Network.requestWillBeSent")]
    assert addresses.count(page.as_uri()) == 1
    assert all(a == page.as_uri() or a.startswith("data:") for a in addresses), addresses


@pytest.mark.parametrize("width", WIDTHS)
def test_every_figure_is_seen_inside_the_page(browser: Browser, page: Path, width: int) -> None:
    found = look(browser, page, width)
    assert len(found["images"]) >= 7
    for image in found["images"]:
        assert image["complete"]
        assert image["natural"] > 1000
        assert image["height"] > 30
        assert 0 <= image["left"] < image["right"] <= found["width"], image["alt"]
        assert len(image["alt"]) > 20


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_not_wider_than_its_window(browser: Browser, page: Path, width: int) -> None:
    found = look(browser, page, width)
    assert found["width"] == width
    assert found["scroll"] <= width


def test_the_policy_of_the_page_is_in_force(browser: Browser, page: Path) -> None:
    look(browser, page, WIDTHS[0])
    meta = 'document.querySelector("meta[http-equiv=Content-Security-Policy]").content'
    assert browser.evaluate(meta) == POLICY
    browser.evaluate(
        'new Promise(ready => { const i = new Image(); i.onerror = () => ready(1); i.src = "x.png" })'
    )
    browser.evaluate(
        'document.body.append(Object.assign(document.createElement("script"), {text: "window.ran = 1"}))'
    )
    assert browser.evaluate("window.ran") is None
    refused = [event["entry"]["text"] for event in browser.named("Log.entryAdded")]
    assert refused  # so that the silence of the other tests means something
    assert all("Content Security Policy" in text for text in refused)


def test_the_page_can_be_printed(browser: Browser, page: Path) -> None:
    look(browser, page, WIDTHS[0])
    content = base64.b64decode(browser.call("Page.printToPDF", printBackground=True)["data"])
    assert content.startswith(b"%PDF")
    assert len(content) > 100_000


def test_a_link_leads_to_its_section(browser: Browser, page: Path) -> None:
    look(browser, page, WIDTHS[0])
    browser.evaluate("document.querySelector(\"nav a[href='#timing']\").click()")
    assert browser.evaluate("scrollY") > 1000
