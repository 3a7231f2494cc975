"""Takes the pictures of the leaderboard that the documentation shows, from a real results database.

    python docs/make_screenshots.py --home .vivace

needs Chromium on the PATH, or its path in VIVACE_TEST_BROWSER, and the `dev` extra.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from vivace.cli.upkeep.serve import command

BROWSER_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


SCHEMES = {"light": "", "dark": "-dark"}
"""How the browser is told to draw → what the names of its pictures end with."""
NAMES = {"Leaderboard": "board", "Conversations": "conversation"}
"""Of pictures that are not called as their page is in the menu."""
COLOURS = 160
"""Of a picture: enough for text, plots and their palettes, and a third of the bytes."""


def main() -> None:
    """Write a picture of each page, in light and in dark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(".vivace"), help="the folder with the results")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("images"), help="where pictures go")
    parser.add_argument("--width", type=int, default=1280, help="of the window, in pixels")
    arguments = parser.parse_args()
    browser_path = os.environ.get("VIVACE_TEST_BROWSER") or shutil.which("chromium")
    if browser_path is None:
        sys.exit("Chromium was not found; install it or set VIVACE_TEST_BROWSER to its path.")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with served(arguments.home) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=BROWSER_FLAGS)
        for scheme, ending in SCHEMES.items():
            window = {"width": arguments.width, "height": 900}
            page = browser.new_page(viewport=window, color_scheme=scheme, reduced_motion="reduce")
            page.set_default_timeout(120_000)
            page.goto(address)
            settle(page)
            links = page.get_by_test_id("stTopNavLink")
            names = [text.split()[-1] for text in links.all_inner_texts()]
            for place, name in enumerate(names):
                page.set_viewport_size(window)
                links.nth(place).click()
                settle(page)
                PREPARED.get(name, settle)(page)
                picture(page, arguments.out / f"{NAMES.get(name, name.lower())}{ending}.png")
            page.close()
        browser.close()


@contextmanager
def served(home: Path) -> Iterator[str]:
    """The leaderboard of a home folder on a free port of this machine, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "VIVACE_HOME": str(home.absolute())}
    server = subprocess.Popen(command("127.0.0.1", port), env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


def settle(page: Page) -> None:
    """Wait until the page has drawn everything, fonts and charts included."""
    page.get_by_role("heading", level=1).wait_for()
    for _ in range(2):  # a change by hand is on its way to the server for a moment
        page.wait_for_timeout(300)
        page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    page.wait_for_function("document.querySelector('[data-stale=true]') === null")
    page.wait_for_function("document.fonts.ready.then(() => true)")
    page.wait_for_timeout(1500)


def where_two_differ(page: Page) -> None:
    """Go to a conversation on which two systems differ, by way of their comparison, where there are two."""
    page.get_by_test_id("stTopNavLink").filter(has_text="Compare").click()
    page.get_by_role("heading", level=1, name="Compare").wait_for()
    settle(page)
    links = page.get_by_role("link", name="All conversations on which")
    if links.count():
        links.last.click()
    else:
        page.go_back()
    settle(page)


def best_of_the_methods(page: Page) -> None:
    """Choose the track with the most methods, where it has results."""
    chooser = page.get_by_role("combobox", name="Track")
    if chooser.count():
        chooser.click()
        wanted = page.get_by_role("option", name="Activation sparsity")
        if wanted.count():
            wanted.click()
        else:
            page.keyboard.press("Escape")
    settle(page)


PREPARED = {"Conversations": where_two_differ, "Efficiency": best_of_the_methods}
"""What is chosen on a page before its picture is taken."""


def picture(page: Page, path: Path) -> None:
    """The whole page: Streamlit scrolls inside it, so the window grows until nothing is hidden."""
    height = page.evaluate("document.querySelector('[data-testid=stMainBlockContainer] > *').scrollHeight")
    width = page.evaluate("window.innerWidth")
    page.set_viewport_size({"width": width, "height": min(int(height) + 100, 1800)})
    page.wait_for_timeout(1000)
    with Image.open(io.BytesIO(page.screenshot())) as taken:
        taken.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
