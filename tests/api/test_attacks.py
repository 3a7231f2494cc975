"""What strangers may try: everything that is not a request of theirs is refused with a reason, and nothing leaks."""

from __future__ import annotations

import gzip
import io
import json
import logging
import pickle
import socket
import tarfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as some
from sqlalchemy import update

from api.conftest import REPLIES, Client, Guest, lines
from support.datasets import tone
from vivace.api import bounds, contents
from vivace.api.door import Door, read_door
from vivace.api.rehearsal import rehearse
from vivace.api.routes import submissions, uploads
from vivace.engine.access.tokens import bearer_of, create_token, revoke_token, tokens
from vivace.errors import UsageError
from vivace.settings import Settings
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.tables import ApiToken

PATHS = ("/v1/submissions", "/v1/submissions/s00000000", "/v1/submissions/s00000000/results", "/v1/leaderboard")


def test_each_scope_opens_its_own_and_nothing_else(guest: Guest) -> None:
    nobody, reader, submitter, admin = guest(None), guest("r", "read"), guest("s", "submit"), guest("a", "admin")
    for path in PATHS:
        assert nobody("GET", path).status_code == 401 and nobody("GET", path).headers["WWW-Authenticate"] == "Bearer"
        assert submitter("GET", path).status_code == 403
        assert {reader("GET", path).status_code, admin("GET", path).status_code} <= {200, 404}
    for path in ("/v1/uploads", "/v1/submissions", "/v1/submissions/s00000000/cancel"):
        body = {"set": "demo", "card": {"name": "x"}, "outputs": "0" * 64}
        assert nobody("POST", path, json=body).status_code == 401
        assert reader("POST", path, json=body).status_code == 403
        assert submitter("POST", path, json=body).status_code in (404, 422)


def test_expired_revoked_and_invented_tokens_open_nothing(guest: Guest, database: Database) -> None:
    expired, revoked = guest("old"), guest("gone")
    with database.write() as session:
        session.execute(
            update(ApiToken).where(ApiToken.name == "old").values(expires_at=now() - timedelta(seconds=1))
        )
    revoke_token(database, "gone")
    for client, why in ((expired, "expired"), (revoked, "revoked")):
        refused = client("GET", "/v1/leaderboard")
        assert refused.status_code == 401 and why in refused.json()["detail"]
    invented: list[str] = ["", "x", "vivace_" + "A" * 43, "é", "a" * 10_000, str(expired.token)[:-1]]
    for token in invented:
        assert (
            Client(expired.http, None)(
                "GET", "/v1/leaderboard", headers={"Authorization": f"Bearer {token}".encode()}
            ).status_code
            == 401
        )
    assert [(row["name"], row["state"]) for row in tokens(database)] == [("old", "expired"), ("gone", "revoked")]
    stored = Path(str(database.path)).read_bytes()
    assert str(expired.token).encode() not in stored and bearer_of(database, str(revoked.token)) is not None
    for name, scopes in (
        ("old", ["read"]),
        ("new", ["everything"]),
        ("new", []),
        ("", ["read"]),
        ("a\x1b", ["read"]),
    ):
        with pytest.raises(UsageError):
            create_token(database, name, scopes)


@pytest.mark.parametrize(
    "door", [Door.model_validate({"limits": {"requests-per-minute": 5, "refusals-per-minute": 3}})]
)
def test_a_flood_is_told_to_come_again_later(guest: Guest, door: Door) -> None:
    alice, bob, nobody = guest("alice"), guest("bob"), guest(None)
    answers = [alice("GET", "/v1/leaderboard") for _ in range(7)]
    assert [one.status_code for one in answers] == [200] * 5 + [429] * 2
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 13
    assert bob("GET", "/v1/leaderboard").status_code == 200, "others are not held up"
    assert [nobody("GET", "/v1/leaderboard").status_code for _ in range(5)] == [401] * 3 + [429] * 2
    assert bob("GET", "/v1/leaderboard").status_code == 200, "whoever is refused shuts nobody of the same address out"
    assert [nobody("GET", "/v1/sets").status_code for _ in range(7)] == [200] * 5 + [429] * 2


class Bomb:
    """What runs a program when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        """Write a file."""
        return (Path.touch, (self.witness,))


def _zip(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return packed.getvalue()


def _tar_of_a_link() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        link = tarfile.TarInfo("replies.jsonl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return packed.getvalue()


def _parquet_bomb() -> bytes:
    packed = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"response": ["a" * 1_000] * 10_000}), packed, compression="zstd")
    return packed.getvalue().to_pybytes()


def test_uploads_of_anything_but_replies_are_refused_with_a_reason(
    guest: Guest, tmp_path: Path, settings: Settings
) -> None:
    alice, witness = guest("alice"), tmp_path / "witness"
    refused = {
        "pickle": pickle.dumps(Bomb(witness)),
        "zip archive": _zip("../../escape", b"\0" * 1_000_000),
        "gzip archive": gzip.compress(b"\0" * 1_000_000),
        "Parquet": _parquet_bomb(),
        "tar archive": _tar_of_a_link(),
        "recording": b"RIFF\x24\0\0\0WAVE",
        "program": b"\x7fELF\2\1\1",
        "UTF-8": b"\xff\xfe\xfd" * 9,
        "empty": b"",
        "JSON": b"not json",
        "response": lines([{"id": "a", "response": 5}]),
        "id": lines([{"response": "x"}]),
        "repeats": lines([{"id": "a", "response": "x"}] * 2),
        "ttft_s": lines([{"id": "a", "response": "x", "ttft_s": "soon"}]),
        "characters": lines([{"id": "a", "response": "x" * 1_000_001}]),
        "levels": b'{"id": "a", "response": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    }
    for reason, content in refused.items():
        answer = alice.upload(content)
        assert answer.status_code in (415, 422), (reason, answer.text)
        assert reason in answer.json()["detail"] or reason in ("UTF-8", "levels"), (reason, answer.text)
        assert str(settings.home) not in answer.text and str(tmp_path) not in answer.text
    assert alice.upload(gzip.compress(REPLIES), headers={"Content-Encoding": "gzip"}).status_code == 415
    assert alice("POST", "/v1/uploads", files={"file": ("../x", REPLIES)}).status_code == 415
    assert not witness.exists() and not (settings.home / "artifacts").exists(), "nothing of it is stored"
    assert not [each for each in settings.home.iterdir() if each.name.startswith("upload-")]


def _silence(seconds: int, rate: int, container: str) -> bytes:
    packed = io.BytesIO()
    soundfile.write(packed, np.zeros(seconds * rate), rate, format=container)
    return packed.getvalue()


@pytest.mark.parametrize("door", [Door.model_validate({"limits": {"recording-seconds": 2}})])
def test_recordings_are_heard_within_bounds_or_refused(guest: Guest, door: Door, settings: Settings) -> None:
    alice = guest("alice")
    whole = tone(440, container="WAV")
    claim = whole[:40] + (2**31).to_bytes(4, "little") + whole[44:]
    film = b"\0\0\0\x20ftypisom" + b"\0" * 400
    for content, status, why in (
        (_silence(600, 8_000, "FLAC"), 422, "more sound than is taken"),
        (_silence(3, 8_000, "OGG"), 422, "at most 2 s"),
        (whole[: len(whole) // 2], 422, "cut off"),
        (whole + whole, 422, "two recordings"),
        (whole + b"MZ" * 50, 422, "left over"),
        (claim[:500], 201, ""),  # a size that was not known yet when it was written: what is there is heard
        (film, 415, "kind that is not taken"),
        (b"\x1aE\xdf\xa3" + b"\0" * 400, 415, "kind that is not taken"),
        (b"OggS" + b"\xff" * 400, 422, "recording"),
        (b"ID3" + b"\x7f" * 400, 422, "recording"),
        (b"fLaC" + b"\xff" * 400, 422, "recording"),
    ):
        answer = alice.upload(content)
        assert answer.status_code == status and why in answer.text, (content[:12], answer.text)
        assert str(settings.home) not in answer.text


def test_replies_name_recordings_by_their_hash_and_only_ones_own(guest: Guest) -> None:
    alice, bob = guest("alice"), guest("bob")
    sound = alice.upload(tone(440)).json()
    assert (sound["replies"], sound["seconds"]) == (0, pytest.approx(0.3))
    assert alice.submit(outputs=sound["sha256"]).status_code == 422, "a recording is no replies"
    for named in ("../../etc/passwd", "/etc/passwd", "a.wav", "", 5, {"path": "x"}, [], "A" * 64, "0" * 64 + "\n"):
        refused = alice.upload(lines([{"id": "a", "response": "x", "audio": named}]))
        assert refused.status_code == 422 and "no SHA-256" in refused.json()["detail"], named
    rows = lines([{"id": "im01lasagnedoor1", "response": "x", "audio": sound["sha256"]}])
    stolen = bob.submit(outputs=bob.upload(rows).json()["sha256"])
    assert stolen.status_code == 404 and "no recording" in stolen.json()["detail"], "known by its hash, and not Bob's"
    replies = alice.upload(rows).json()["sha256"]
    as_sound = alice.upload(lines([{"id": "im01lasagnedoor1", "response": "x", "audio": replies}])).json()["sha256"]
    assert alice.submit(outputs=as_sound).status_code == 404, "replies are no recording"
    silent = alice.upload(lines([{"id": "im01lasagnedoor1", "audio": sound["sha256"]}])).json()["sha256"]
    assert "transcriber" in alice.submit(outputs=silent).json()["detail"]
    assert alice.submit(outputs=replies).status_code == 201


@pytest.mark.parametrize(
    "door", [Door.model_validate({"limits": {"upload-mb": 0.1, "uploads-mb-per-owner": 0.01, "open-submissions": 1}})]
)
def test_there_is_a_most_of_everything(guest: Guest, door: Door) -> None:
    alice = guest("alice")
    assert alice.upload(b"x" * 200_000).status_code == 413
    assert alice.upload(iter([b"x" * 50_000] * 5)).status_code == 413, "sent in pieces"
    assert alice("POST", "/v1/submissions", content=b" " * 70_000).status_code == 413
    key = alice.upload().json()["sha256"]
    assert alice.upload().status_code == 201, "what is sent again takes no more room"
    assert "may hold" in alice.upload(REPLIES + b"\n" * 5_000).json()["detail"]
    assert alice.submit(outputs=key).status_code == 201
    assert alice.submit(outputs=key, private=True).status_code == 429, "one is open already"


MODELS = Door.model_validate({"models": ["litellm:openai/gpt-audio*", "local:*", "replay:*", "cascade:*", "*"]})
INWARD = (
    "replay:/etc/passwd", "replay:artifact:" + "0" * 64 + "/x", "local:/etc", "local:../x", "local:~/model",
    "local:OWNER/NAME", "local:owner/name@main", "local:owner/name.gguf", "cascade:litellm:openai/gpt",
    "litellm:http://127.0.0.1:1/v1", "litellm:openai/../x", "litellm:openai/x?api_base=http://10.0.0.1",
    "litellm:", ":x", "nothing", "litellm:a\nb", "litellm:$(id)", "litellm:{0.__class__}", "packaged:../x",
)  # fmt: skip


@pytest.mark.parametrize("door", [MODELS])
def test_no_model_reaches_inward_even_where_all_are_let_in(guest: Guest, door: Door) -> None:
    alice = guest("alice")
    for model in INWARD:
        assert alice.submit(model=model).status_code == 422, model


def test_by_default_no_model_is_asked_and_no_key_of_the_operator_used(guest: Guest) -> None:
    alice = guest("alice")
    refused = alice.submit(model="litellm:openai/gpt-audio")
    assert refused.status_code == 403 and "upload outputs" in refused.json()["detail"]
    for extra in (
        {"api-base": "http://10.0.0.1"},
        {"judge": "litellm:x/y"},
        {"data": "/etc"},
        {"trust-remote-code": 1},
    ):
        assert alice.submit(**extra).status_code == 422, "keys that are the operator's"


def test_no_secret_is_taken_down_or_told_again(guest: Guest, settings: Settings, database: Database) -> None:
    alice = guest("alice")
    for name in (f"my system {alice.token}", "sk-abcdef0123456789", "a \x1b[31m system", "\x00", " ", "\ud800"):
        refused = alice("POST", "/v1/submissions", content=json.dumps({"set": "demo", "card": {"name": name}}))
        assert refused.status_code == 422 and "token" not in refused.text.replace("[token]", ""), refused.text
    assert alice.submit(card={"name": "<script>alert(1)</script> {{7*7}}"}).status_code == 201, (
        "shown as it is written"
    )
    written = b"".join(file.read_bytes() for file in settings.home.rglob("*") if file.is_file())
    assert str(alice.token).encode() not in written and b"abcdef0123456789" not in written


@pytest.mark.parametrize(
    "text",
    ["sets: {}", "sets: {x: {data: demo, model: y}}", "sets: {x: {data: demo, judgee: y}}", "nothing: 1", "[]",
     "limits: {upload-mb: -1}", "limits: {uploads-mb-per-owner: .inf}", "models: 5"],
)  # fmt: skip
def test_a_configuration_that_says_what_it_cannot_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "api.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"api\.yaml|keys|submission"):
        read_door(file)


@pytest.mark.parametrize(
    ("changed", "why"),
    [({}, None), ({"data": "nowhere.parquet"}, "no file"), ({"items": ["nothing"]}, "nothing"),
     ({"transcriber": "whisper:packaged:whisper-base"}, "fetch it"), ({"judge": "none:x"}, "judge"),
     ({"judge": "litellm:x/y", "max-cost": 1}, "price")],
)  # fmt: skip
def test_a_set_that_nobody_could_submit_to_is_found_out_at_the_start(
    changed: dict[str, Any], why: str | None, settings: Settings
) -> None:
    door = Door.model_validate(
        {"sets": {"mine": {"data": "demo", "judge": "checks", "audio": "transcript", **changed}}}
    )
    if why is None:
        rehearse(door, settings)
        return
    with pytest.raises(UsageError, match=f"The set 'mine' cannot be submitted to here.*{why}"):
        rehearse(door, settings)


@pytest.mark.parametrize("proxy", ["*", "nonsense", "10.0.0.1/8", "127.0.0.1,*", ""])
def test_only_an_address_is_believed_what_it_says_of_a_requests_origin(proxy: str) -> None:
    with pytest.raises(UsageError, match="is not an address"):
        bounds.server_options(proxy)
    assert bounds.server_options("127.0.0.1, 10.0.0.0/24")["proxy_headers"]


def test_while_the_database_is_away_it_says_so(guest: Guest, database: Database, settings: Settings) -> None:
    alice = guest("alice")
    assert alice("GET", "/v1/leaderboard").status_code == 200
    Path(str(database.path)).rename(settings.home / "elsewhere.db")
    for answer in (alice("GET", "/v1/leaderboard"), alice.upload(), alice("GET", "/health/ready")):
        assert answer.status_code == 503 and "Retry-After" in answer.headers
        assert str(settings.home) not in answer.text
    (settings.home / "elsewhere.db").rename(str(database.path))
    assert alice("GET", "/v1/leaderboard").status_code == 200 == alice("GET", "/health/ready").status_code


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for as long as otherwise."""
    for name in ("IDLE_S", "HEADERS_S", "UNREAD_S"):
        monkeypatch.setattr(bounds, name, 0.3)


def _said(port: int, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """What a connection says to pieces that are sent one after another, until it is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause_s)
            heard = b""
            while more := connection.recv(65536):
                heard += more
        except ConnectionError:
            return b"closed"
    return heard


@pytest.mark.usefixtures("hurried")
def test_claims_of_ten_gigabytes_and_slow_requests_are_cut_off(server: int, database: Database) -> None:
    token = create_token(database, "alice", ["submit"])
    head = f"POST /v1/uploads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n".encode()
    assert b" 413 " in _said(server, head + b"Content-Length: 10000000000\r\n\r\n", b"x" * 1000)
    endless = (b"%x\r\n%s\r\n" % (1 << 20, b"x" * (1 << 20)) for _ in range(200))
    assert _said(server, head + b"Transfer-Encoding: chunked\r\n\r\n", *endless)[:12] in (b"HTTP/1.1 413", b"closed")
    assert b" 408 " in _said(server, head + b"Content-Length: 1000\r\n\r\n", b"x"), "a body that does not go on"
    assert _said(server, b"GET /v1/sets HTTP/1.1\r\nHost:") in (b"", b"closed"), "headers that do not end"
    drops = (b"GET /v1/sets HTTP/1.1\r\nX: y\r\n"[place : place + 1] for place in range(12))
    assert _said(server, *drops, pause_s=0.05) in (b"", b"closed"), "headers that come by drops"
    assert b" 400 " in _said(server, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n"), "not HTTP"
    both = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/sets HTTP/1.1\r\nHost: x\r\n\r\n"
    assert b'"judge"' not in _said(server, head + both), "no second request hides in a first"
    assert b" 400 " in _said(server, b"GET /v1/sets HTTP/1.1\r\nHost: x\r\n" + both)


@pytest.mark.usefixtures("hurried")
def test_whoever_reads_no_answer_is_cut_off(server: int) -> None:
    with socket.create_connection(("127.0.0.1", server), timeout=20) as connection, pytest.raises(ConnectionError):
        while True:
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)


def test_one_address_holds_a_part_of_the_connections(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_OF_ONE", 2)
    held = [socket.create_connection(("127.0.0.1", server), timeout=20) for _ in range(2)]
    assert _said(server, b"GET /v1/sets HTTP/1.1\r\nHost: x\r\n\r\n") in (b"", b"closed")
    for connection in held:
        connection.close()


def test_a_person_sends_two_uploads_at_a_time(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = guest("alice"), guest("bob")
    monkeypatch.setitem(uploads._under_way, "alice", uploads.MOST_OF_ONE)
    assert alice.upload().status_code == 429 and bob.upload().status_code == 201
    monkeypatch.setitem(uploads._under_way, "carol", uploads.MOST_AT_ONCE)
    assert bob.upload().status_code == 429, "and all together send eight"


def test_uploads_that_unfold_in_memory_are_looked_at_one_at_a_time(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    read, heard = contents.read_replies, contents.decode

    def looked_at(look: Any, *given: Any) -> Any:
        seen.append(contents._turn.locked())
        return look(*given)

    monkeypatch.setattr(contents, "read_replies", partial(looked_at, read))
    monkeypatch.setattr(contents, "decode", partial(looked_at, heard))
    alice = guest("alice")
    assert alice.upload().status_code == 201 and alice.upload(tone(440)).status_code == 201
    assert seen == [True, True] and not contents._turn.locked()


@pytest.mark.parametrize("door", [Door.model_validate({"limits": {"open-submissions": 1}})])
def test_submissions_that_come_at_once_are_each_counted(
    guest: Guest, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, all_asked = guest("alice"), threading.Barrier(2, timeout=20)
    files = [REPLIES + lines([{"id": f"another {number}", "response": "x"}]) for number in range(2)]
    outputs = [alice.upload(content).json()["sha256"] for content in files]
    make_spec = submissions.spec_of

    def spec_of(*given: Any) -> Any:
        all_asked.wait()
        return make_spec(*given)

    monkeypatch.setattr(submissions, "spec_of", spec_of)
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda one: alice.submit(outputs=one).status_code, outputs))
    assert sorted(answers) == [201, 429]


_TEXT = some.text(max_size=40) | some.sampled_from(
    [
        "../../etc/passwd",
        "/etc/passwd",
        "%2e%2e%2f",
        "\0",
        "'; DROP TABLE run; --",
        "{{7*7}}",
        "$(id)",
        "a" * 5000,
    ]
)
_JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | _TEXT,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_ASKED = some.fixed_dictionaries(
    {},
    optional={
        "set": some.just("demo") | _JSON, "card": some.just({"name": "x"}) | _JSON, "outputs": _JSON, "model": _JSON,
        "private": _JSON, "api-base": _JSON,
    },
)  # fmt: skip
_REQUEST = some.tuples(
    some.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]),
    some.sampled_from([*PATHS, "/v1/uploads", "/v1/sets", "/openapi.json", "/", "/v1/../v1/sets", "/docs"])
    | _TEXT.map(lambda text: "/v1/submissions/" + text)
    | _TEXT.map(lambda text: "/" + text),
    _ASKED.map(lambda asked: json.dumps(asked).encode()) | some.binary(max_size=200) | _JSON.map(
        lambda value: json.dumps([{"id": value, "response": value}]).encode()
    ),
    some.dictionaries(
        some.sampled_from(["Content-Type", "Content-Encoding", "Accept", "X-Forwarded-For", "Host", "Cookie"]),
        some.sampled_from(["", "gzip", "text/html", "application/json", "multipart/form-data", "127.0.0.1", "é"]),
        max_size=2,
    ),
    some.booleans(),
)  # fmt: skip


def _storm(guest: Guest, settings: Settings, caplog: pytest.LogCaptureFixture, count: int) -> None:
    alice, nobody = guest("alice"), guest(None)
    outside = {each for each in settings.home.parent.rglob("*") if settings.home not in (each, *each.parents)}

    @examples(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(_REQUEST)
    def ask(request: tuple[str, str, bytes, dict[str, str], bool]) -> None:
        method, path, body, headers, known = request
        try:
            answer = (alice if known else nobody)(
                method, path, content=body, headers={name: value.encode() for name, value in headers.items()}
            )
        except (ValueError, TypeError):
            return  # the client itself would not send it
        except Exception as error:
            if type(error).__module__.startswith("httpx"):
                return
            raise
        assert answer.status_code < 500, (request, answer.text)
        said = answer.text + str(answer.headers)
        assert str(settings.home) not in said and str(alice.token) not in said and "environment-canary" not in said

    with caplog.at_level(logging.DEBUG):
        ask()
    assert str(alice.token) not in caplog.text and "environment-canary" not in caplog.text
    assert {each for each in settings.home.parent.rglob("*") if settings.home not in (each, *each.parents)} == outside


def test_no_request_is_the_servers_fault_or_tells_a_secret(
    guest: Guest, settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "environment-canary-91c8")
    _storm(guest, settings, caplog, 100)


@pytest.mark.full
def test_two_thousand_bad_requests_are_answered(
    guest: Guest, settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "environment-canary-91c8")
    _storm(guest, settings, caplog, 2000)
