"""The leaderboard as people meet it: a real server, a real browser, recordings that really play."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from support.program import environment
from vivace.cli.serve import command

sync_api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")

BROWSER = os.environ.get("VIVACE_TEST_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium on the PATH; install it or name one in VIVACE_TEST_BROWSER"
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
SELECTED_ROWS = "[data-testid=stDataFrame] tr[aria-selected=true]"
ROW_HEIGHT = 31


class Judged(NamedTuple):
    """A leaderboard with results."""

    address: str
    judgings: dict[str, str]
    """A short name → the judging's id."""


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    """A headless Chromium with a profile of its own."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: sync_api.Browser) -> Iterator[sync_api.Page]:
    """A tab that remembers which servers it asked, in `asked`."""
    page = browser.new_page(viewport={"width": 1400, "height": 900}, reduced_motion="reduce")
    page.set_default_timeout(30_000)
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(urllib.parse.urlsplit(request.url).netloc))
    yield page
    page.close()
    strangers = {host for host in asked if host and not host.startswith("127.0.0.1")}
    assert not strangers, f"the pages called {strangers}"


@contextmanager
def serving(home: Path) -> Iterator[str]:
    """The address of a leaderboard that reads this home folder, while the context lasts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(command("127.0.0.1", port), env=environment(VIVACE_HOME=str(home)))
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/_stcore/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def address(home: Path) -> Iterator[str]:
    """The address of a new leaderboard; the server reads the test's home folder."""
    with serving(home) as url:
        yield url


@pytest.fixture(scope="module")
def judged(filled: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judged]:
    """A leaderboard that tests share, over a filled home folder."""
    folder, judgings = filled
    home = Path(shutil.copytree(folder, tmp_path_factory.mktemp("judged") / "home"))
    with serving(home) as url:
        yield Judged(url, judgings)


def settle(page: sync_api.Page, title: str) -> None:
    """Wait until the page with this title is drawn, and check that nothing went wrong on it."""
    page.get_by_role("heading", level=1, name=title).wait_for()
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    page.wait_for_timeout(800)
    assert page.locator("[data-testid=stException]").count() == 0


def tick(page: sync_api.Page, row: int) -> None:
    """Tick a row of the first table by its box."""
    box = page.locator("[data-testid=stDataFrame]").first.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 16, box["y"] + ROW_HEIGHT * (row + 1) + ROW_HEIGHT / 2)


@pytest.mark.usefixtures("empty")
def test_an_empty_board_says_how_to_begin(page: sync_api.Page, address: str) -> None:
    page.goto(address)
    settle(page, "Vivace leaderboard")
    page.get_by_text("There are no results yet").wait_for()
    page.get_by_role("link", name="Conversations").click()
    settle(page, "Conversations")
    page.get_by_text("vivace demo").wait_for()


@pytest.mark.usefixtures("judgings")
def test_a_link_to_a_page_is_the_first_thing_a_server_is_asked(page: sync_api.Page, address: str) -> None:
    page.goto(f"{address}/conversation")
    settle(page, "Conversations")
    page.get_by_role("link", name="Leaderboard").wait_for()


def test_from_the_board_to_a_conversation_and_back(page: sync_api.Page, judged: Judged) -> None:
    page.goto(judged.address)
    settle(page, "Vivace leaderboard")
    assert page.locator("[data-testid=stDataFrame]").count() == 3
    page.locator("[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg").first.wait_for()
    tick(page, 1)
    settle(page, "Conversations")
    assert f"judging={judged.judgings['steady']}" in page.url
    tick(page, 5)
    page.get_by_role("heading", name="picnic-005").wait_for()
    assert "conversation=picnic-005" in page.url
    page.reload()
    settle(page, "Conversations")
    page.get_by_role("heading", name="picnic-005").wait_for()
    assert page.locator(SELECTED_ROWS).all_inner_texts()[0].startswith("picnic-005")
    page.get_by_role("link", name="Leaderboard").click()
    settle(page, "Vivace leaderboard")
    assert page.locator(SELECTED_ROWS).count() == 0, "coming back does not leave again"


def test_a_filter_survives_a_reload(page: sync_api.Page, judged: Judged) -> None:
    address, judgings = judged
    page.goto(f"{address}/conversation?judging={judgings['careful']}&other={judgings['imported']}")
    settle(page, "Conversations")
    page.get_by_text("Only where they differ").click()
    page.get_by_text("21 of 24 conversations").wait_for()
    assert "differs=1" in page.url
    page.reload()
    settle(page, "Conversations")
    page.get_by_text("21 of 24 conversations").wait_for()


@pytest.mark.parametrize("position", [0, 1, 2], ids=["wav-first", "flac-first", "ogg-first"])
def test_recordings_play(page: sync_api.Page, judged: Judged, position: int) -> None:
    address, judgings = judged
    page.goto(f"{address}/conversation?judging={judgings['careful']}&conversation=picnic-{position:03d}")
    settle(page, "Conversations")
    page.get_by_role("heading", name="Criteria").wait_for()
    players = page.locator("audio")
    assert players.count() == 2, "only the opened conversation's recordings are loaded"
    for number in range(2):
        played = players.nth(number).evaluate(
            """async (audio) => {
                audio.muted = true;
                await audio.play();
                await new Promise((done) => setTimeout(done, 700));
                return {time: audio.currentTime, ready: audio.readyState, seconds: audio.duration};
            }"""
        )
        assert played["time"] > 0.1
        assert played["ready"] >= 2
        assert played["seconds"] == pytest.approx(2.0, abs=0.1)


def test_nothing_in_a_reply_is_interpreted(page: sync_api.Page, judged: Judged, hostile: str) -> None:
    address, judgings = judged
    page.goto(f"{address}/conversation?judging={judgings['sleepy']}&conversation=picnic-000")
    settle(page, "Conversations")
    page.get_by_text(hostile, exact=True).wait_for()
    page.goto(f"{address}/?data={urllib.parse.quote(hostile)}")
    settle(page, "Vivace leaderboard")
    assert page.locator("b[onclick], a[href*=evil], img[src*=evil]").count() == 0
    page.get_by_text("the link may be old or mistyped").wait_for()
