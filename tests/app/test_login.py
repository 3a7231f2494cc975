"""Who logs in sees their own private runs, on every page and in every download, and nobody else does."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import DBAPIError
from streamlit.testing.v1 import AppTest

from support.program import environment
from vivace.cli.upkeep.serve import check_login, command
from vivace.errors import UsageError, VivaceError
from vivace.settings import Settings
from vivace.store import tables
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.migrate import open_for_writing
from vivace.store.tables import ForeignResult
from vivace.store.visibility import NOBODY, OPERATOR, Viewer
from vivace_app import data
from vivace_app.viewer import viewer_of

ALICE = "alice@example.org"
LOGIN = """[auth]
redirect_uri = "{address}/oauth2callback"
cookie_secret = "0123456789abcdef0123456789abcdef"
client_id = "vivace"
client_secret = "not needed on loopback"
server_metadata_url = "{provider}/.well-known/openid-configuration"
"""


@pytest.mark.parametrize(
    "claims, name",
    [
        ({"is_logged_in": True, "email": ALICE}, ALICE),
        ({"is_logged_in": True, "email": " Alice@Example.org ", "email_verified": "true"}, ALICE),
        ({"is_logged_in": True, "email": ALICE, "email_verified": False}, None),
        ({"is_logged_in": True, "email": ALICE, "email_verified": "false"}, None),
        ({"is_logged_in": False, "email": ALICE}, None),
        ({"email": ALICE}, None),
        ({"is_logged_in": True, "name": ALICE, "preferred_username": ALICE}, None),
        ({"is_logged_in": True, "email": ["x"]}, None),
        ({"is_logged_in": True, "email": " "}, None),
    ],
)
def test_a_person_is_the_address_that_the_provider_vouches_for(claims: dict[str, Any], name: str | None) -> None:
    assert viewer_of(claims) == (NOBODY if name is None else Viewer(name))


@pytest.mark.parametrize(
    "change, said",
    [
        (("[auth]", "[other]"), "lacks redirect_uri, cookie_secret, client_id, client_secret, server_metadata_url"),
        (('client_id = "vivace"', "client_id = 7"), "lacks client_id under"),
        (("0123456789abcdef0123456789abcdef", "short"), "less than 32 characters"),
        (("/oauth2callback", "/"), "with /oauth2callback"),
        (("[auth]", "[auth"), "is not TOML"),
    ],
)
def test_a_login_file_that_nobody_could_log_in_with_is_refused(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    path = tmp_path / "login.toml"
    text = LOGIN.format(address="http://127.0.0.1:1", provider="http://127.0.0.1:2")
    path.write_text(text.replace(*change))
    with pytest.raises(UsageError, match=said):
        check_login(path, False)
    with pytest.raises(UsageError, match="cannot be read"):
        check_login(tmp_path / "none.toml", False)
    with pytest.raises(UsageError, match="would hide nothing"):
        check_login(path, True)


@pytest.fixture
def private(home: Path, judgings: dict[str, str]) -> dict[str, str]:
    """The filled database, in which a run that ranks first is Alice's alone; a short name → the judging's id."""
    opened = open_for_writing(Settings(home=home))
    with opened.write() as session:
        for name in ("careful", "strict"):
            run = session.get_one(tables.Judging, judgings[name]).run_id
            session.execute(update(tables.Run).where(tables.Run.id == run).values(owner=ALICE, private_since=now()))
    opened.close()
    return judgings


def _page() -> None:
    import importlib

    import streamlit as st

    name = st.query_params.pop("view")
    importlib.import_module(f"vivace_app.views.{name}").show()


def shown(view: str, **parameters: str) -> str:
    """All that a page shows."""
    app = AppTest.from_function(_page, default_timeout=300)
    app.query_params.update({"view": view, **parameters})
    app.run()
    assert not app.exception
    texts = [str(frame.value.to_dict()) for frame in app.dataframe]
    texts += [str(one.value) for kind in (app.markdown, app.text, app.caption) for one in kind]
    texts += [str(one.options) for kind in (app.selectbox, app.multiselect) for one in kind]
    return "\n".join(texts)


def test_pages_show_a_private_run_to_its_owner_and_not_to_whoever_comes_next(
    private: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Viewer] = []
    monkeypatch.setattr(data, "viewer", lambda: looks[-1])
    with_judging = {"conversation": {"judging": private["careful"]}}
    for view in ("board", "runs", "conversation", "analysis", "compare"):
        seen = []
        for viewer in (Viewer(ALICE), NOBODY, Viewer(ALICE)):  # each after another's caches
            looks.append(viewer)
            seen.append("careful" in shown(view, **with_judging.get(view, {})))
        assert seen == [True, False, True], view


def test_what_a_page_reads_with_cannot_write(database_url: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", database=database_url)
    open_for_writing(settings).close()
    reader = Database(settings.database_url, read_only=True)
    event = {"level": "info", "message": "m", "created_at": now()}
    for attempt in (
        lambda session: session.execute(tables.Event.__table__.insert().values(event)),
        lambda session: session.execute(tables.Run.__table__.delete()),
        lambda session: session.execute(ForeignResult.__table__.delete()),
        lambda session: session.connection().exec_driver_sql("CREATE TABLE made (x INTEGER)"),
    ):
        with pytest.raises((DBAPIError, VivaceError)), reader.write() as session:
            attempt(session)
    with reader.seen_by(OPERATOR).read() as session:
        assert session.query(tables.Event).count() == 0
    reader.close()


@pytest.mark.usefixtures("judgings")
def test_the_pages_database_is_read_only() -> None:
    opened = data.database()
    assert opened is not None and opened.read_only


@pytest.fixture
def login(private: dict[str, str], home: Path, tmp_path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The address of a leaderboard that people log in to, and what their provider says of the next one."""
    from support.identity_provider import identity_provider

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with identity_provider() as provider:
        file = tmp_path / "login.toml"
        file.write_text(LOGIN.format(address=url, provider=provider.address))
        check_login(file, False)
        told = environment(VIVACE_HOME=str(home), VIVACE_LOGIN=str(file))
        server = subprocess.Popen(command("127.0.0.1", port, file), env=told)
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"{url}/_stcore/health", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield url, provider.claims
        finally:
            server.terminate()
            server.wait(20)


@pytest.mark.full  # a server, a browser and three people
def test_people_log_in_through_their_provider_and_out_again(login: tuple[str, dict[str, Any]]) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    from app.test_browser import BROWSER, FLAGS, settle

    if BROWSER is None:
        pytest.skip("no chromium on the PATH; install it or name one in VIVACE_TEST_BROWSER")
    address, claims = login
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        for email, sees in ((ALICE, True), ("bob@example.org", False)):
            claims.update({"sub": email, "email": email, "email_verified": True})
            page = browser.new_context().new_page()
            page.set_default_timeout(60_000)
            runs = f"{address}/runs"
            page.goto(runs)
            settle(page, "Runs")
            assert page.get_by_role("button", name="Log in").count() == 1
            assert "careful" not in page.locator("[data-testid=stApp]").inner_text()
            page.get_by_role("button", name="Log in").click()
            page.get_by_text(email).wait_for()
            page.goto(runs)
            settle(page, "Runs")
            page.get_by_role("combobox").first.click()
            page.wait_for_timeout(500)
            assert ("careful on" in page.locator("body").inner_text()) == sees
            page.keyboard.press("Escape")
            page.get_by_role("button", name="Log out").click()
            page.get_by_role("button", name="Log in").wait_for()
        browser.close()
