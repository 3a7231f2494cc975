"""Takes the pictures of the leaderboard that the documentation shows, from a real results database.

    python docs/make_screenshots.py --home .vivace

needs Chromium on the PATH, or its path in VIVACE_TEST_BROWSER, and the `dev` extra.
"""

from __future__ import annotations

import argparse
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

from playwright.sync_api import Page, sync_playwright

from vivace.cli.serve import command

BROWSER_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main() -> None:
    """Write board.png, conversation.png and efficiency.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(".vivace"), help="the folder with the results")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("images"), help="where pictures go")
    parser.add_argument("--width", type=int, default=1400, help="of the window, in pixels")
    arguments = parser.parse_args()
    browser_path = os.environ.get("VIVACE_TEST_BROWSER") or shutil.which("chromium")
    if browser_path is None:
        sys.exit("Chromium was not found; install it or set VIVACE_TEST_BROWSER to its path.")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with served(arguments.home) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=BROWSER_FLAGS)
        page = browser.new_page(
            viewport={"width": arguments.width, "height": 900}, device_scale_factor=2, reduced_motion="reduce"
        )
        page.goto(address)
        settle(page)
        picture(page, arguments.out / "board.png")
        page.goto(f"{address}/conversation")
        settle(page)
        second_system(page)
        picture(page, arguments.out / "conversation.png")
        page.goto(f"{address}/efficiency")
        settle(page)
        track(page, "Activation sparsity")
        picture(page, arguments.out / "efficiency.png")
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
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    page.wait_for_function("document.fonts.ready.then(() => true)")
    page.wait_for_timeout(1500)


def second_system(page: Page) -> None:
    """Put a second system beside the first, where there is one, on a conversation where they differ."""
    page.get_by_role("combobox", name="Compare with").click()
    options = page.get_by_role("option")
    options.first.wait_for()
    if options.count() == 1:
        page.keyboard.press("Escape")
        return
    options.nth(1).click()
    settle(page)
    differs = page.get_by_text("Only where they differ")
    differs.click()
    settle(page)
    if page.get_by_text("No conversation matches").count():
        differs.click()
        settle(page)


def track(page: Page, title: str) -> None:
    """Choose a track, where it has results."""
    page.get_by_role("combobox", name="Track").click()
    page.get_by_role("option", name=title).click()
    settle(page)


def picture(page: Page, path: Path) -> None:
    """The whole page: Streamlit scrolls inside it, so the window grows until nothing is hidden."""
    height = page.evaluate("document.querySelector('[data-testid=stMainBlockContainer] > *').scrollHeight")
    width = page.evaluate("window.innerWidth")
    page.set_viewport_size({"width": width, "height": min(int(height) + 100, 2400)})
    page.wait_for_timeout(1000)
    page.screenshot(path=str(path))


if __name__ == "__main__":
    main()
