"""What `whisper:` names: a model of Whisper converted for CTranslate2, and how it is to listen."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vivace.errors import UsageError
from vivace.files.content_hash import folder_sha256
from vivace.files.hub import commit_of, snapshot
from vivace.models.local.checkpoints import Checkpoint
from vivace.models.packaged import folder_of_packaged
from vivace_methods.spelling import Part, SpellingError, parse, read_settings
from vivace_methods.suggestions import did_you_mean

FILES = ("config.json", "model.bin", "preprocessor_config.json", "tokenizer.json", "vocabulary.*")
"""What makes a converted model; large-v3 alone needs a preprocessor's settings."""
NEEDED = ("config.json", "model.bin", "tokenizer.json", "vocabulary.*")
PUBLIC = {
    "tiny": "d90ca5fe260221311c53c58e660288d3deb8d356",
    "base": "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
    "small": "536b0662742c02347bc0e980a01041f333bce120",
    "large-v3": "edaa852ec7e145841d8ffdb056a99866b5f0a478",
}
"""Whisper's sizes → the commit of `Systran/faster-whisper-SIZE` that is meant."""
PACKAGED = ("whisper-base",)
"""Those that `vivace models get` puts into the home."""
MOST_BEAMS = 100


@dataclass(frozen=True)
class Listening:
    """How Whisper listens; all of it is part of a transcriber's identity.

    Attributes:
        language: what is spoken, by Whisper's short name; `auto` lets it guess from the first half minute.
        beam_size: how many transcripts are followed at once.
        compute_type: of CTranslate2's products.
        device: `auto` is a GPU where there is one.
    """

    language: str = "en"
    beam_size: int = 5
    compute_type: Literal["int8", "int8_float16", "int8_bfloat16", "float16", "bfloat16", "float32"] = "int8"
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True)
class WhisperModel(Checkpoint):
    """Where a converted model comes from: a folder, or a repository on the hub at a commit."""

    def fetched(self) -> Path:
        """The folder with its files, fetched from the hub where they are not here yet.

        Raises:
            UnreachableError: the hub does not answer.
            UsageError: a file is missing.
        """
        if self.folder is not None:
            return self.folder
        assert self.commit is not None
        folder = snapshot("model", self.name, self.commit, wanted=FILES)
        _check_files(folder, self.name)
        return folder


def read_target(text: str, home: Path) -> tuple[WhisperModel, Listening]:
    """The model and the settings of `whisper:NAME` or `whisper(setting=value,…):NAME`.

    Args:
        text: the target.
        home: the folder that packaged models lie in.

    Raises:
        UsageError: it is not written so, a setting cannot take its value, or there is no such model.
        UnreachableError: a branch has to be looked up, and the hub does not answer.
    """
    try:
        part, *others = parse(text)
        listening = Listening(**read_settings(Listening, Part(part.name, part.settings), "transcriber"))
    except SpellingError as error:
        raise UsageError(str(error)) from error
    if others or part.folder is None:
        raise UsageError(f"The transcriber '{text}' is none; write it as whisper:NAME, for instance whisper:base.")
    if not 1 <= listening.beam_size <= MOST_BEAMS:
        raise UsageError(
            f"The setting beam_size of whisper must be from 1 to {MOST_BEAMS}, not {listening.beam_size}."
        )
    return _find(part.folder, home), listening


def model_sha256(folder: Path) -> str:
    """A hash of what makes a converted model."""
    return folder_sha256(folder, FILES)


def _find(name: str, home: Path) -> WhisperModel:
    if name.startswith("packaged:"):
        return _packaged(name.removeprefix("packaged:"), home)
    folder = Path(name)
    if folder.is_dir():
        _check_files(folder, name)
        return WhisperModel(folder.absolute().name, folder=folder.absolute())
    size, _, revision = name.partition("@")
    if size in PUBLIC:
        repository = f"Systran/faster-whisper-{size}"
        return WhisperModel(repository, commit=commit_of("model", repository, revision or PUBLIC[size]))
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", size) and revision:
        return WhisperModel(size, commit=commit_of("model", size, revision))
    raise UsageError(
        f"There is no folder '{name}'{did_you_mean(name, PUBLIC)}; write whisper: and one of {', '.join(PUBLIC)}, "
        f"packaged:{PACKAGED[0]}, a FOLDER or a HUB-ID@REVISION with a model converted for CTranslate2."
    )


def _packaged(name: str, home: Path) -> WhisperModel:
    if name not in PACKAGED:
        raise UsageError(f"No package holds the Whisper model '{name}'; there is packaged:{PACKAGED[0]}.")
    return WhisperModel(name, folder=folder_of_packaged(name, home).absolute())


def _check_files(folder: Path, name: str) -> None:
    missing = [pattern for pattern in NEEDED if not any(file.stat().st_size for file in folder.glob(pattern))]
    if missing:
        raise UsageError(
            f"The model '{name}' lacks {', '.join(missing)}, so it is no Whisper converted for CTranslate2; what "
            "transformers saved is named local:FOLDER."
        )
