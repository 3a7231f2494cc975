"""`vivace serve` as a process: what it refuses, what it says, and that nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from vivace.cli.upkeep.serve import command, serve
from vivace.errors import UsageError
from vivace.settings import Settings
from vivace.store import migrate
from vivace.store.database import Database

PROGRAM = "import typer; from vivace.cli.upkeep.serve import serve; typer.run(serve)"


@pytest.fixture
def port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_port_in_use_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"Port {taken} on 127.0.0.1 is in use; .* --port"):
            serve(port=taken)


def test_an_unknown_host_is_refused(port: int) -> None:
    with pytest.raises(UsageError, match="--host"):
        serve(port=port, host="203.0.113.7")


def test_a_foreign_database_is_refused(home: Path, port: int) -> None:
    home.mkdir()
    with sqlite3.connect(home / "vivace.db") as other:
        other.execute("CREATE TABLE cats (name TEXT)")
    other.close()
    with pytest.raises(UsageError, match="tables that Vivace did not make"):
        serve(port=port)


def test_a_newer_database_is_refused(home: Path, port: int) -> None:
    migrate.open_for_writing(Settings(home=home)).close()
    database = Database(Settings(home=home).database_url)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(UsageError, match="install the newer Vivace"):
        serve(port=port)


def test_an_unreadable_database_is_refused(home: Path, port: int) -> None:
    home.mkdir()
    (home / "vivace.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(UsageError, match="cannot be opened"):
        serve(port=port)


def test_the_server_is_quiet_and_calls_nobody() -> None:
    line = command("127.0.0.1", 8501)
    assert Path(line[4]).is_file()
    assert "--browser.gatherUsageStats=false" in line
    assert "--server.headless=true" in line
    assert "--server.fileWatcherType=none" in line


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_quietly_and_leaves_nothing(home: Path, port: int, stop: signal.Signals) -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--home", str(home), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("VIVACE_")},
    )
    try:
        _wait_until_up(port)
        server.send_signal(stop)
        out, told = server.communicate(timeout=20)
    finally:
        server.kill()
    assert out == "", "stdout is data"
    assert f"http://127.0.0.1:{port}" in told
    assert "Traceback" not in told
    assert server.returncode == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert not home.exists(), "serving creates nothing"


def _wait_until_up(port: int) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server did not start")
