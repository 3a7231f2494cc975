"""Artifacts of a folder and of a store behind a URL, here S3 on loopback, and the trees that travel through it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from vivace.errors import IncompleteError, UsageError, VivaceError
from vivace.settings import Settings
from vivace.store.artifacts import Artifacts, open_artifacts
from vivace.store.remote_artifacts import RemoteArtifacts
from vivace.store.trees import FetchedTrees, let_go_of_trees, members, references, store_tree


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where artifacts lie: a folder, or a bucket of its own."""
    return str(tmp_path / "shared") if request.param == "folder" else request.getfixturevalue("bucket")


@pytest.fixture
def shared(url: str, tmp_path: Path) -> Iterator[Artifacts]:
    """Artifacts as one machine sees them."""
    yield open_artifacts(Settings(home=tmp_path / "one", artifacts=url))
    let_go_of_trees()


def _elsewhere(url: str, tmp_path: Path, **settings: float) -> Artifacts:
    return open_artifacts(Settings(home=tmp_path / "two", artifacts=url, **settings))  # type: ignore[arg-type]


def test_what_one_machine_stores_another_finds(shared: Artifacts, url: str, tmp_path: Path) -> None:
    sha256 = shared.put(b"a recording")
    assert sha256 == hashlib.sha256(b"a recording").hexdigest() == shared.put(b"a recording")
    other = _elsewhere(url, tmp_path)
    assert other.has(sha256)
    assert other.get(sha256) == b"a recording"
    assert other.fetch(sha256).read_bytes() == b"a recording"
    assert [(held.sha256, held.bytes) for held in other.listed()] == [(sha256, 11)]
    other.delete(sha256)
    other.delete(sha256)
    assert not shared.has(sha256)
    assert list(shared.listed()) == []
    with pytest.raises(VivaceError, match="is missing"):
        _elsewhere(url, tmp_path / "three").get(sha256)


def test_a_copy_that_went_bad_is_fetched_again_and_a_bad_original_is_refused(bucket: str, tmp_path: Path) -> None:
    one, two = (open_artifacts(Settings(home=tmp_path / name, artifacts=bucket)) for name in ("one", "two"))
    sha256 = one.put(b"a recording")
    one.path(sha256).write_bytes(b"something else")
    assert one.get(sha256) == b"a recording"
    one.path(sha256).write_bytes(b"something else")
    assert one.fetch(sha256).read_bytes() == b"a recording"
    bad = tmp_path / "bad"
    bad.write_bytes(b"of another hash")
    RemoteArtifacts(bucket).upload(sha256, bad)
    with pytest.raises(VivaceError, match="is damaged"):
        two.get(sha256)
    assert [path for path in two.folder.rglob("*") if path.is_file()] == []


def test_the_cache_keeps_what_was_used_last(bucket: str, tmp_path: Path) -> None:
    one = open_artifacts(Settings(home=tmp_path / "one", artifacts=bucket))
    hashes = [one.put(bytes([number]) * 1000) for number in range(4)]
    two = _elsewhere(bucket, tmp_path, artifacts_cache_gb=2500 / 2**30)
    for age, sha256 in enumerate(hashes[:2]):
        os.utime(two.fetch(sha256), (age, age))
    two.get(hashes[0])  # used now: the other one is older
    two.get(hashes[2])
    kept = {path.name for path in two.folder.rglob("*") if path.is_file()}
    assert kept == {hashes[0], hashes[2]}
    assert two.get(hashes[1]) == b"\1" * 1000


def test_a_store_that_does_not_answer_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivace.store.remote_artifacts.FIRST_PAUSE_S", 0.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    artifacts = open_artifacts(Settings(home=tmp_path, artifacts="s3://away/x"))
    with pytest.raises(IncompleteError, match="'s3://away/x' cannot be read or written"):
        artifacts.has("0" * 64)
    with pytest.raises(UsageError, match="cannot be understood"):
        open_artifacts(Settings(home=tmp_path, artifacts="nothing://of/the/kind"))


def test_keys_and_endpoint_of_the_store_may_stand_in_the_file_of_the_surroundings(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    (tmp_path / ".env").write_text("".join(f"{name}={os.environ[name]}\n" for name in names))
    for name in names:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    sha256 = open_artifacts(Settings(home=tmp_path / "home", artifacts=bucket)).put(b"found")
    assert open_artifacts(Settings(home=tmp_path / "other", artifacts=bucket)).get(sha256) == b"found"


def test_trees_travel_whole_under_their_names(shared: Artifacts, url: str, tmp_path: Path) -> None:
    folder = tmp_path / "fit"
    (folder / "deep").mkdir(parents=True)
    (folder / "recipe.json").write_text("{}")
    (folder / "deep" / "weights").write_bytes(b"\0" * 10)
    data = tmp_path / "data.jsonl"
    data.write_text("[]")
    whole, file = store_tree(shared, folder), store_tree(shared, data, [folder / "recipe.json"])
    spec = {"data": file, "arms": [f"r-sparse(sparsity=0.4):{whole}+claa"], "limit": 3}
    assert references(spec) == {text.removeprefix("artifact:").partition("/")[0] for text in (whole, file)}
    assert len(members(shared, next(iter(references(whole))))) == 2
    trees = FetchedTrees(tmp_path / "two" / "fetched", _elsewhere(url, tmp_path), 2**30)
    there = Path(trees.path(whole))
    assert there.name == "fit"
    assert {str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()} == {
        "recipe.json", "deep/weights",
    }  # fmt: skip
    laid = Path(trees.path(file))
    assert (laid.name, laid.read_text()) == ("data.jsonl", "[]")
    assert (laid.parent / "fit" / "recipe.json").read_text() == "{}"
    assert trees.path("claa") == "claa"


def test_trees_that_are_in_use_are_not_removed_for_room(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "artifacts")
    named = []
    for number in range(3):
        path = tmp_path / f"file{number}"
        path.write_bytes(bytes([number]) * 100)
        named.append(store_tree(artifacts, path))
    trees = FetchedTrees(tmp_path / "fetched", artifacts, 150)
    first, second = Path(trees.path(named[0])), Path(trees.path(named[1]))
    assert first.is_file()
    let_go_of_trees()
    os.utime(first.parent, (1, 1))
    third = Path(trees.path(named[2]))
    assert [path.is_file() for path in (first, second, third)] == [False, False, True]
    let_go_of_trees()


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", ""])
def test_a_list_whose_names_lead_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    artifacts = Artifacts(tmp_path / "artifacts")
    content = artifacts.put(b"x")
    listed = artifacts.put(json.dumps({"files": {name: content}}).encode())
    with pytest.raises(VivaceError, match="is no list of files"):
        FetchedTrees(tmp_path / "fetched", artifacts, 100).path(f"artifact:{listed}/x")
    assert not (tmp_path / "outside").exists()
