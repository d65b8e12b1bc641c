"""Test the built site in a browser: build it into OUT, then run MINILSTM_SITE=OUT python -m pytest tests/site.

These tests need the extra ``site`` and Debian's package chromium (or the path of a Chromium in CHROMIUM). Without
MINILSTM_SITE pytest collects nothing here, so the default suite needs neither.
"""

import os
import shutil
from pathlib import Path

import pytest

SITE = os.environ.get("MINILSTM_SITE")
collect_ignore_glob = [] if SITE else ["test_*.py"]
WIDTHS = (1280, 390)


def pages(folder):
    """The paths of all pages of the site, relative to its folder."""
    found = [path.relative_to(folder) for path in Path(folder).rglob("*.html")]
    return sorted(str(path) for path in found if not path.parts[0].startswith("_"))


def pytest_generate_tests(metafunc):
    if "page_name" in metafunc.fixturenames:
        metafunc.parametrize("page_name", pages(SITE))


@pytest.fixture(scope="session")
def site():
    """The folder of the built site."""
    folder = Path(SITE).resolve()
    assert (folder / "index.html").exists(), f"MINILSTM_SITE: no index.html in {folder}"
    return folder


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert path, "chromium is not installed: apt-get install chromium, or set CHROMIUM to its path"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Visit:
    """An open page and its faults: messages on the console, failed requests, requests to the network."""

    def __init__(self, context, address):
        self.faults = []
        self.page = context.new_page()
        self.page.on("console", lambda m: self.faults.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("requestfailed", lambda request: self.faults.append(f"failed: {request.url}"))
        self.page.on("request", self._local)
        self.page.goto(address, wait_until="load")
        self.page.wait_for_function("!window.MathJax || (MathJax.startup && MathJax.startup.promise)")
        self.page.evaluate("window.MathJax ? MathJax.startup.promise.then(() => null) : null")

    def _local(self, request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.faults.append(f"asks the network for {request.url}")


@pytest.fixture
def visit(site, browser):
    """``visit(page_name, width=1280, color_scheme="light")`` opens a page of the site."""
    contexts = []

    def opened(page_name, width=1280, color_scheme="light"):
        size = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=size, color_scheme=color_scheme))
        return Visit(contexts[-1], (site / page_name).as_uri() if "?" not in page_name else
                     (site / page_name.split("?")[0]).as_uri() + "?" + page_name.split("?")[1])  # fmt: skip

    yield opened
    for context in contexts:
        context.close()
