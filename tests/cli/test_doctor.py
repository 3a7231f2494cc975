"""`vivace doctor` and `vivace db`: what is there, what is broken, and no secrets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]


def found(call: Call, *arguments: object) -> dict[str, dict[str, Any]]:
    """The findings by what was looked at."""
    return {row["what"]: row for row in json.loads(call("doctor", "--format", "json", *arguments).out)}


def test_a_healthy_setup_passes_and_nothing_is_written(call: Call, tmp_path: Path) -> None:
    done = call("doctor")
    assert done.code == 0, done.out
    findings = found(call)
    assert {findings[name]["state"] for name in ("Python", "sqlalchemy", "litellm", "audio", "home folder")} == {"ok"}
    assert "M4A and WebM" in findings["audio"]["found"] and "ffmpeg" not in findings
    assert findings["database"]["state"] == "missing" and "first run creates it" in findings["database"]["found"]
    assert list(tmp_path.iterdir()) == []
    call("db", "upgrade")
    assert found(call)["database"]["state"] == "ok"


def test_broken_things_are_named_and_fail(call: Call, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database" * 100)
    done = call("doctor", "--database", tmp_path / "text.db", "--home", "/dev/null/x")
    assert done.code == 1
    findings = found(call, "--database", tmp_path / "text.db", "--home", "/dev/null/x")
    assert findings["database"]["state"] == findings["home folder"]["state"] == "broken"
    assert "not a database" in findings["database"]["found"] and "--home" in findings["home folder"]["found"]
    assert "✗" in done.out and "Traceback" not in done.err


def test_an_unreachable_server_is_broken_and_its_password_not_shown(call: Call) -> None:
    done = call("doctor", "--database", "postgresql://me:hunter2@127.0.0.1:1/x")
    assert done.code == 1
    assert "hunter2" not in done.out + done.err


def test_a_missing_package_is_broken(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivace.installation.NEEDED", ("sqlalchemy", "no-such-package"))
    done = call("doctor", "--format", "json")
    assert done.code == 1
    states = {row["what"]: row["state"] for row in json.loads(done.out)}
    assert (states["sqlalchemy"], states["no-such-package"]) == ("ok", "broken")


@pytest.mark.parametrize("format", ["table", "json", "csv", "md"])
def test_keys_are_seen_but_never_shown(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment-secret")
    (tmp_path / ".env").write_text("GEMINI_API_KEY=file-secret\nHF_TOKEN=\n")
    done = call("doctor", "--format", format)
    assert "secret" not in done.out + done.err
    findings = found(call)
    assert [findings[key]["state"] for key in ("OPENAI_API_KEY", "GEMINI_API_KEY", "HF_TOKEN")] == [
        "ok", "ok", "missing",
    ]  # fmt: skip


def test_db_says_where_it_stands(call: Call, bare_database_url: str) -> None:
    from vivace.store.migrate import head

    done = call("db", "current", "--database", bare_database_url)
    assert (done.code, done.out) == (0, "") and "no database yet" in done.err
    done = call("db", "upgrade", "--database", bare_database_url)
    assert (done.code, done.out.strip(), done.err.strip()) == (0, head(), "upgraded")
    assert call("db", "upgrade", "--database", bare_database_url).err.strip() == "nothing to do"
    assert call("db", "current", "--database", bare_database_url).out.startswith(f"{head()} (current")
