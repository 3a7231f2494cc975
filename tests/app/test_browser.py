"""The leaderboard as people meet it: a real server, a real browser, recordings that really play."""

from __future__ import annotations

import os
import runpy
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import select, update

from support.job_on_show import add_job
from support.measured import run_of
from support.program import environment
from vivace.cli.upkeep.serve import command
from vivace.settings import Settings
from vivace.store import migrate
from vivace.store.tables import Criterion, Judging, Model, Reply, Run
from vivace.tracks.efficiency.scores import score_run

Axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing").Axe
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
TABLES = "[data-testid=stDataFrame]"
ROW_HEIGHT = 31


STREAMLITS_OWN = ("/_stcore/health", "/_stcore/host-config")
"""Where Streamlit's page looks first for its server when a link leads straight to a page; it is not there."""
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
TITLES = {"Leaderboard": "Vivace leaderboard"}
"""Of pages that are called otherwise in the menu."""
HOSTILE = "<b onclick=alert(1)>bold</b> [link](http://evil.invalid) :smile: $x$ ![image](http://evil.invalid/i.png)"
LONG = "lorem " * 17_000
HOSTILE_CARD = f"<script>document.title = 'owned'</script> {HOSTILE} \u202edrow\u202c \u2066\x1b[31m\x07 "


Filled = tuple[Path, dict[str, str]]
"""A home folder, and of its judgings a short name → the id."""


class Judged(NamedTuple):
    """A leaderboard with results."""

    address: str
    judgings: dict[str, str]
    """A short name → the judging's id."""


class Leaderboard:
    """One server for all tests of this file, which shows one home folder and then another."""

    def __init__(self, address: str, shown: Path) -> None:
        self.address = address
        self._shown = shown

    def show(self, home: Path) -> None:
        """Put another home folder in the place of the one on show, as whoever restores a backup does."""
        self._shown.unlink(missing_ok=True)
        self._shown.symlink_to(home, target_is_directory=True)


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


@pytest.fixture(scope="module")
def leaderboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Leaderboard]:
    """The server."""
    shown = tmp_path_factory.mktemp("shown") / "home"
    with serving(shown) as address:
        yield Leaderboard(address, shown)


@pytest.fixture(scope="module")
def window(leaderboard: Leaderboard) -> Iterator[sync_api.BrowserContext]:
    """A headless Chromium with a profile of its own, which keeps what it has loaded once."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        window = browser.new_context(viewport=WIDE, reduced_motion="reduce")
        window.set_default_timeout(30_000)
        sync_api.expect.set_options(timeout=30_000)
        yield window
        browser.close()


@pytest.fixture
def page(window: sync_api.BrowserContext) -> Iterator[sync_api.Page]:
    """A tab in which nothing may go wrong: no exception, no error in the console, no server but ours is asked."""
    page = window.new_page()
    asked: set[str] = set()
    wrong: list[str] = []

    def said(message: sync_api.ConsoleMessage) -> None:
        if message.type == "error" and not message.location["url"].endswith(STREAMLITS_OWN):
            wrong.append(message.text)

    page.on("request", lambda request: asked.add(urllib.parse.urlsplit(request.url).netloc))
    page.on("console", said)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    page.close()
    strangers = {host for host in asked if host and not host.startswith("127.0.0.1")}
    assert not strangers, f"the pages called {strangers}"
    assert not wrong


@pytest.fixture(scope="module")
def full(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """A home folder with something on every page, hostile words among it; a short name → the judging's id."""
    folder, judgings = filled
    home = Path(shutil.copytree(folder, tmp_path_factory.mktemp("full") / "home"))
    database = migrate.open_for_writing(Settings(home=home, database=None))
    run = run_of(database)
    with database.write() as session:
        score_run(session, run, margin=0.05)
        add_job(session)
        of_hostile = select(Run.model_id).join(Judging).where(Judging.id == judgings["hostile"])
        session.execute(
            update(Model)
            .where(Model.id == of_hostile.scalar_subquery())
            .values(
                name=HOSTILE_CARD, description=HOSTILE_CARD + LONG, organisation=HOSTILE_CARD, licence=HOSTILE_CARD
            )
        )
        of_kitchen = select(Reply.id).join(Judging, Judging.run_id == Reply.run_id)
        session.execute(
            update(Reply)
            .where(Reply.id.in_(of_kitchen.where(Judging.id == judgings["hostile"])))
            .values(text=HOSTILE_CARD + LONG)
        )
        session.execute(update(Criterion).where(Criterion.number == 2).values(text=HOSTILE_CARD))
    database.close()
    return home, judgings


@pytest.fixture
def judged(leaderboard: Leaderboard, full: Filled) -> Judged:
    """A leaderboard over a filled home folder."""
    home, judgings = full
    leaderboard.show(home)
    return Judged(leaderboard.address, judgings)


def settle(page: sync_api.Page, title: str) -> None:
    """Wait until the page with this title is drawn, and check that nothing went wrong on it."""
    page.get_by_role("heading", level=1, name=title).wait_for()
    for _ in range(2):  # a change by hand is on its way to the server for a moment
        page.wait_for_timeout(150)
        page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    page.wait_for_function("document.querySelector('[data-stale=true]') === null")
    assert page.locator("[data-testid=stException]").count() == 0


def tick(page: sync_api.Page, row: int, table: str = "") -> None:
    """Tick a row of a table by its box: of the one with this alternative text, else of the first."""
    tables = page.locator(f"[data-testid=stDataFrame]:has([aria-label='{table}'])" if table else TABLES)
    tables.first.scroll_into_view_if_needed()
    box = tables.first.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 16, box["y"] + ROW_HEIGHT * (row + 1) + ROW_HEIGHT / 2)


def test_a_link_to_a_page_is_the_first_thing_a_server_is_asked(page: sync_api.Page, judged: Judged) -> None:
    """The first test of this file, whose server is new."""
    page.goto(f"{judged.address}/conversation")
    settle(page, "Conversations")
    page.get_by_role("link", name="Leaderboard").wait_for()


@pytest.mark.usefixtures("empty")
def test_an_empty_board_says_how_to_begin(page: sync_api.Page, leaderboard: Leaderboard, home: Path) -> None:
    leaderboard.show(home)
    page.goto(leaderboard.address)
    settle(page, "Vivace leaderboard")
    page.get_by_text("There are no results yet").wait_for()
    walk(page)
    page.get_by_role("link", name="Conversations").click()
    settle(page, "Conversations")
    page.get_by_text("vivace demo").wait_for()


def walk(page: sync_api.Page, *, closer: Sequence[sync_api.ViewportSize] = ()) -> list[str]:
    """Go to every page by the menu, look at it on a screen and on a telephone; returns the menu.

    Args:
        page: on one of the pages.
        closer: in windows of which sizes axe-core looks at each.
    """
    links = page.get_by_test_id("stTopNavLink")
    names = [text.split()[-1] for text in links.all_inner_texts()]
    for place, name in enumerate(names):
        links.nth(place).click()
        settle(page, TITLES.get(name, name))
        for window in (NARROW, WIDE):
            check_width(page, window)
            if window in closer:
                check_access(page)
    return names


def check_width(page: sync_api.Page, window: sync_api.ViewportSize = WIDE) -> None:
    """In a window of this size nothing scrolls sideways but what does so by itself; tables take a moment to fit."""
    page.set_viewport_size(window)
    try:
        page.wait_for_function(
            "[document.documentElement, document.querySelector('[data-testid=stMain]')]"
            ".every((one) => one.clientWidth <= innerWidth && one.scrollWidth <= one.clientWidth)",
            timeout=10_000,
        )
    except sync_api.TimeoutError:
        pytest.fail(f"{page.url} is wider than a window of {window['width']} pixels")


def check_access(page: sync_api.Page) -> None:
    """Axe-core finds no serious and no critical fault."""
    found = Axe().run(page).response["violations"]
    grave = [(one["id"], one["nodes"][0]["html"][:300]) for one in found if one["impact"] in ("serious", "critical")]
    assert not grave, page.url


def test_every_page_is_right_on_a_screen_and_on_a_telephone(page: sync_api.Page, judged: Judged) -> None:
    page.goto(judged.address)
    settle(page, "Vivace leaderboard")
    menu = walk(page, closer=[WIDE])
    assert {"Leaderboard", "Conversations", "Compare", "Analysis", "Efficiency", "Methodology"} <= set(menu)


def test_from_the_board_to_a_conversation_and_back(page: sync_api.Page, judged: Judged) -> None:
    page.goto(judged.address)
    settle(page, "Vivace leaderboard")
    sync_api.expect(page.locator("[data-testid=stDataFrame]")).to_have_count(3)
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
    page.locator(SELECTED_ROWS).first.wait_for(state="attached")
    assert page.locator(SELECTED_ROWS).all_inner_texts()[0].startswith("picnic-005")
    page.get_by_role("link", name="Leaderboard").click()
    settle(page, "Vivace leaderboard")
    sync_api.expect(page.locator(SELECTED_ROWS), "coming back does not leave again").to_have_count(0)


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
    only = "only the opened conversation's recordings are loaded"
    sync_api.expect(players, only).to_have_count(2)
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


def test_keys_step_through_conversations(page: sync_api.Page, judged: Judged) -> None:
    page.goto(f"{judged.address}/conversation?judging={judged.judgings['careful']}")
    settle(page, "Conversations")
    page.get_by_role("button", name="Next").wait_for()  # which hears the keys
    page.keyboard.press("n")
    page.get_by_role("heading", name="picnic-001").wait_for()
    page.keyboard.press("p")
    page.get_by_role("heading", name="picnic-000").wait_for()
    assert "conversation=picnic-000" in page.url


def test_from_the_front_page_to_where_two_systems_differ(page: sync_api.Page, judged: Judged) -> None:
    page.goto(judged.address)
    settle(page, "Vivace leaderboard")
    page.get_by_role("link", name="Compare").click()
    settle(page, "Compare")
    tick(page, 0, table="Conversations that came out differently")
    settle(page, "Conversations")
    page.get_by_role("heading", name="Replies").wait_for()
    assert {"judging", "other", "conversation"} <= set(urllib.parse.parse_qs(urllib.parse.urlsplit(page.url).query))
    page.get_by_role("table").get_by_text("✗ not met").first.wait_for()
    sync_api.expect(page.locator("audio")).to_have_count(2)


def test_nothing_in_a_reply_is_interpreted(page: sync_api.Page, judged: Judged, hostile: str) -> None:
    address, judgings = judged
    page.goto(f"{address}/conversation?judging={judgings['sleepy']}&conversation=picnic-000")
    settle(page, "Conversations")
    page.get_by_text(hostile, exact=True).wait_for()
    page.goto(f"{address}/?data={urllib.parse.quote(hostile)}")
    settle(page, "Vivace leaderboard")
    assert page.locator("b[onclick], a[href*=evil], img[src*=evil]").count() == 0
    page.get_by_text("the link may be old or mistyped").wait_for()


def test_a_hostile_card_is_text_on_every_page(page: sync_api.Page, judged: Judged) -> None:
    address, judgings = judged
    others = f"judging={judgings['hostile']}&conversation=kitchen-001"
    for where, title in (("", "Vivace leaderboard"), (f"conversation?{others}", "Conversations")):
        page.goto(f"{address}/{where}")
        settle(page, title)
        page.get_by_test_id("stText").filter(has_text="<script>document.title = 'owned'</script>").first.wait_for()
        assert page.locator("b[onclick], a[href*=evil], img[src*=evil]").count() == 0
        assert page.title() != "owned"
        assert not set(page.locator("[data-testid=stMain]").inner_text()) & set("\u202e\u2066\x1b\x07")
        check_width(page, NARROW)
        check_width(page, WIDE)


@pytest.mark.full  # axe-core in every size and in the dark, and a million verdicts
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("large", [False, True], ids=["some", "many"])
def test_every_page_is_right_in_every_size_and_light(
    page: sync_api.Page, leaderboard: Leaderboard, full: Filled, a_million: Path, scheme: Any, large: bool
) -> None:
    leaderboard.show(a_million if large else full[0])
    page.emulate_media(color_scheme=scheme)
    page.goto(leaderboard.address)
    settle(page, "Vivace leaderboard")
    walk(page, closer=[NARROW, WIDE])


@pytest.fixture(scope="module")
def a_million(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with twenty systems, ten thousand conversations and more than a million verdicts."""
    home = tmp_path_factory.mktemp("million") / "home"
    database = migrate.open_for_writing(Settings(home=home, database=None))
    data = runpy.run_path(str(BENCHMARKS / "boards_data.py"), run_name="boards_data")
    data["fill"](database, data["Amount"](10_000))
    database.close()
    return home
