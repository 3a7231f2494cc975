"""Keys and passwords are in nothing that is printed or recorded, whatever form they come in."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from vivace.output.secrets import masked, note_password, without_keys, without_keys_inside

KEY = "gw+not/a=real&key~1234<xyzQ>"


@pytest.fixture(autouse=True)
def gateway_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One key in the environment, and no `.env`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_API_KEY", KEY + "\r\n")


FORMS: dict[str, Callable[[str], str]] = {
    "raw": lambda key: key,
    "percent-encoded": lambda key: quote(key, safe=""),
    "in lower case": lambda key: quote(key, safe="").replace("%2B", "%2b").replace("%2F", "%2f"),
    "twice": lambda key: quote(quote(key, safe=""), safe=""),
    "every byte": lambda key: "".join(f"%{byte:02X}" for byte in key.encode()),
    "in JSON": lambda key: json.dumps({"detail": key}).replace("/", "\\/"),
    "as code points": lambda key: "".join(f"\\u{ord(character):04x}" for character in key),
    "in HTML": html.escape,
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "basic": lambda key: "Basic " + base64.b64encode(f"me:{key}".encode()).decode(),
    "its beginning": lambda key: f"Incorrect API key provided: {key[:14]}*********.",
    "its end": lambda key: f"...{key[-14:]}",
    "its middle": lambda key: f"...{key[5:22]}...",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_masked_in_every_form(form: str) -> None:
    text = without_keys(f"The key {FORMS[form](KEY)} is refused.")
    assert "[GATEWAY_API_KEY]" in text and text.endswith("is refused."), text
    assert not any(part in text for part in (KEY[:9], KEY[-9:], KEY[8:17], quote(KEY[-9:], safe="")))


def test_what_is_no_key_stays() -> None:
    for text in ("Yes, 100%25 & more.", 'She said "\\n".', "max_tokens=5", "http://127.0.0.1:8000/v1?to=a@b", "a@b.c",
                 "ratio 12:30", "hf_hub_download", "task-oriented"):  # fmt: skip
        assert masked(text) == text


def test_a_key_of_the_file_is_masked(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OTHER_TOKEN='file-key-0123456789'\n")
    assert without_keys("x file-key-0123456789 y") == "x [OTHER_TOKEN] y"
    assert without_keys_inside({"a": ["file-key-0123456789", 1, None]}) == {"a": ["[OTHER_TOKEN]", 1, None]}


def test_a_plain_word_given_to_a_server_without_keys_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "placeholder")
    assert masked("The form shows a placeholder.") == "The form shows a placeholder."
    monkeypatch.setenv("OPENAI_API_KEY", "placeholder7")
    assert masked("The form shows a placeholder7.") == "The form shows a [OPENAI_API_KEY]."


def test_what_is_not_secret_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "sometimes")
    monkeypatch.setenv("SSH_KEY_FILE", "/home/me/.ssh/id")
    monkeypatch.setenv("SHORT_TOKEN", "yes")
    assert without_keys("sometimes /home/me/.ssh/id yes") == "sometimes /home/me/.ssh/id yes"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("postgresql://me:hidden@db:5432/x", "postgresql://me:***@db:5432/x"),
        ("postgresql+psycopg://me:hid/d?e@n@db/x", "postgresql+psycopg://me:***@db/x"),
        ("http://:hidden@proxy:3128", "http://:***@proxy:3128"),
        ("postgresql://db/x?user=me&password=hidden", "postgresql://db/x?user=me&password=***"),
        ("host=db user=me password='hid d en' dbname=x", "host=db user=me password=*** dbname=x"),
        ("{'Authorization': 'Bearer hidden12345'}", "{'Authorization': 'Bearer ***'}"),
        ("x-api-key: hidden", "x-api-key: ***"),
        ("the key sk-proj-hidden1 is wrong", "the key [key] is wrong"),
    ],
)
def test_the_place_tells_a_password(text: str, left: str) -> None:
    assert masked(text) == left


def test_a_noted_password_is_masked_anywhere() -> None:
    note_password("correct horse", "me", "db")
    note_password("vivace-db", "vivace-db")
    assert masked("FATAL: correct horse for vivace-db") == "FATAL: [password] for vivace-db"


@pytest.mark.parametrize("piece", ["a", "%41", "a:", "://a:", "\\u0041", "password=", KEY[:12], "sk-", "&amp;"])
def test_a_long_text_is_masked_in_bounded_time(piece: str) -> None:
    """Expressions that search a text once and not once for each of its places."""
    masked(piece * (100_000 // len(piece)))
