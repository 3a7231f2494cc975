"""`vivace publish`: a folder without a server in which every link leads somewhere, and texts are only texts."""

from __future__ import annotations

import os
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from huggingface_hub import SpaceCard

from support.judged import add_dataset, add_judging
from support.program import vivace
from vivace.settings import Settings
from vivace.store.migrate import open_for_writing


class _Page(HTMLParser):
    """What a page points at, and the elements that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.elements: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.links += [value for name, value in attrs if name in ("href", "src") and value is not None]
        assert not [name for name, _ in attrs if name.startswith("on")], f"{tag} would run something"


@pytest.fixture(scope="module")
def site(filled: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of a filled home, with recordings."""
    folder = tmp_path_factory.mktemp("published") / "site"
    done = vivace("publish", folder, "--audio", "--space", "--title", "Ours: <b>1</b>", "--home", filled[0])
    assert done.returncode == 0, done.stderr
    return folder


def test_every_link_leads_to_a_file_and_nothing_leads_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    recordings = set()
    for page in pages:
        found = _Page(page.read_text())
        assert not found.elements & {"script", "iframe", "img", "link", "object", "form"}
        for link in found.links:
            target = (page.parent / link).resolve()
            assert target.is_relative_to(site.resolve()) and target.is_file(), f"{page} points at {link}"
            recordings |= {target} if target.parent.name == "audio" else set()
    assert recordings == {path.resolve() for path in (site / "audio").iterdir()} and recordings


def test_what_others_published_and_measured_stands_beside_and_never_among(site: Path, tmp_path: Path) -> None:
    index = (site / "index.html").read_text()
    assert "Published by others" not in index and "other-tools.html" not in index  # of a track of our own
    database = open_for_writing(Settings(home=tmp_path / "home"))
    with database.write() as session:
        add_judging(session, add_dataset(session, 4), [[[True, True]]] * 4, name="ours")
    database.close()
    home = ("--home", tmp_path / "home")
    logs = Path(__file__).parents[1] / "comparison" / "inspect_logs"
    for path in ("first.eval", "second.eval"):
        assert vivace("import", "--from", "inspect", logs / path, *home).returncode == 0
    done = vivace("publish", tmp_path / "others", *home)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "others" / "other-tools.html").read_text()
    assert "inspect 0.3.285" in text and "2 no answer" in text
    index = (tmp_path / "others" / "index.html").read_text()
    own, _, published = index.partition("Published by others, not run here")
    assert 'href="other-tools.html"' in index and "inspect" not in own
    assert "ours, set" in published and "gpt-realtime-1.5 (audio)" in published and "gpt-realtime-1.5" not in own
    assert "have no rank" in published


def test_private_runs_are_on_no_page_and_in_no_folder(filled: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    home = Path(shutil.copytree(filled[0], tmp_path / "home"))
    before = vivace("publish", tmp_path / "before", "--home", home)
    run = filled[1]["steady"]
    assert vivace("visibility", run, "private", "--home", home).returncode == 0
    after = vivace("publish", tmp_path / "after", "--home", home, "--audio", "--space")
    assert before.returncode == after.returncode == 0
    found = {name: [path for path in (tmp_path / name).rglob("*") if path.is_file() and (
        run in path.as_posix() or b"steady" in path.read_bytes()
    )] for name in ("before", "after")}  # fmt: skip
    assert found["before"] and not found["after"]


def test_texts_of_others_are_texts(site: Path) -> None:
    texts = "\n".join(page.read_text() for page in site.rglob("*.html"))
    assert "&lt;b onclick=alert(1)&gt;bold&lt;/b&gt;" in texts and "<b onclick" not in texts
    assert "Ours: &lt;b&gt;1&lt;/b&gt;" in texts
    card = SpaceCard.load(site / "README.md").data
    assert (card.title, card.sdk, card.app_file) == ("Ours: <b>1</b>", "static", "index.html")


def test_a_site_takes_the_place_of_a_site_and_of_nothing_else(
    filled: tuple[Path, dict[str, str]], site: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(site, tmp_path / "site"))
    (copied / "left over.html").write_text("of before")
    done = vivace("publish", copied, "--scores-only", "--home", filled[0])
    assert done.returncode == 0 and not (copied / "left over.html").exists() and not (copied / "audio").exists()
    assert not list(copied.glob("judgings/*/*.html")) and list(copied.glob("judgings/*.html"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for folder, said in (
        (tmp_path / "mine", "no site of Vivace's"),
        (tmp_path / "mine" / "thesis.txt", "no site of"),
    ):
        refused = vivace("publish", folder, "--home", filled[0])
        assert refused.returncode == 2 and said in refused.stderr.replace("\n", " ")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"
    nothing = vivace("publish", tmp_path / "new", "--home", tmp_path / "home")
    assert nothing.returncode == 2 and "nothing to publish" in nothing.stderr and not (tmp_path / "new").exists()


@pytest.mark.full  # every page in a browser
def test_a_browser_follows_every_link_from_the_disk(site: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    program = os.environ.get("VIVACE_TEST_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on the PATH; install it or name one in VIVACE_TEST_BROWSER")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 900})
        asked: list[str] = []
        failed: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("requestfailed", lambda request: failed.append(request.url))
        page.on("console", lambda message: failed.append(message.text))
        waiting, seen = [(site / "index.html").as_uri()], set[str]()
        while waiting:
            url = waiting.pop()
            if url not in seen:
                seen.add(url)
                page.goto(url)
                assert page.evaluate("document.documentElement.scrollWidth") <= 390, url
                waiting += page.evaluate("[...document.links].map(link => link.href)")
        browser.close()
    assert seen == {path.as_uri() for path in site.rglob("*.html")}
    assert not failed and all(url.startswith("file://") for url in asked)


def test_a_browser_opens_it_from_the_disk(site: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    program = os.environ.get("VIVACE_TEST_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on the PATH; install it or name one in VIVACE_TEST_BROWSER")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for width in (1440, 390):
            page = browser.new_page(viewport={"width": width, "height": 900})
            asked: list[str] = []
            said: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.on("console", lambda message, said=said: said.append(message.text))
            page.goto((site / "index.html").as_uri())
            for _ in range(2):  # to a judging, and on to a conversation
                page.locator("td a").first.click()
                assert page.evaluate("document.documentElement.scrollWidth") <= width
            seconds = page.evaluate(
                "new Promise(done => { const heard = document.querySelector('audio'); heard.preload = 'auto';"
                " heard.onloadedmetadata = () => done(heard.duration); heard.onerror = () => done(0); heard.load() })"
            )
            assert seconds > 1
            assert all(url.startswith("file://") for url in asked) and not said
        browser.close()
