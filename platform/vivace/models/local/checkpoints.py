"""Where a model on this machine comes from: a folder, or a repository on the hub at a commit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vivace.errors import UsageError
from vivace.files.content_hash import file_sha256, folder_sha256
from vivace.files.hub import commit_of, snapshot
from vivace.models.local.gguf import GgufFile, require_gguf_file
from vivace.models.packaged import PACKAGED, PREFIX, folder_of_packaged, packaged_model

FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")
"""What makes a checkpoint: settings, templates, vocabularies and weights."""
CODE = "*.py"
DOUBLES = ("consolidated*", "original/*")
"""The same weights once more, in a form that transformers does not read."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class Checkpoint:
    """Where a model comes from: a folder, a repository on the hub at a commit, or a GGUF file."""

    name: str
    folder: Path | None = None
    commit: str | None = None
    gguf: GgufFile | None = None
    brings_code: bool = False
    """Whether code of its own is fetched with it, to be run; the operator alone lets it."""

    def fetched(self) -> Path:
        """The folder with its files, fetched from the hub, or turned from GGUF, where they are not here yet.

        Raises:
            UnreachableError: the hub does not answer.
            UsageError: it holds nothing that can be loaded.
            VivaceError: what is turned from GGUF cannot be written.
        """
        if self.folder is not None:
            return self.folder
        if self.gguf is not None:
            return self.gguf.turned()
        assert self.commit is not None
        wanted = (*FILES, CODE) if self.brings_code else FILES
        folder = snapshot("model", self.name, self.commit, wanted=wanted, unwanted=DOUBLES)
        check_folder(folder, self.name)
        return folder

    @property
    def content(self) -> str | None:
        """A hash of what it is, wherever it lies; of one on the hub None, for its commit says it."""
        if self.gguf is not None:
            return self.gguf.sha256
        return None if self.folder is None else checkpoint_sha256(self.folder)


def find_checkpoint(text: str, home: Path) -> Checkpoint:
    """The checkpoint that is meant by what stands after `local:`.

    Args:
        text: a folder, a GGUF file, or a hub id with a revision.
        home: the home folder, under which a GGUF file is turned into a checkpoint.

    Raises:
        UsageError: there is no such folder or repository, or the folder holds no model that can be loaded.
        UnreachableError: a branch has to be looked up, and the hub does not answer.
    """
    folder = Path(text)
    if folder.is_file():  # whatever it is called: the hub's cache and others name files by their hash
        return _gguf(folder.stem, folder, home)
    if folder.exists():
        check_folder(folder, text)
        return Checkpoint(folder.absolute().name, folder=folder.absolute())
    hub = re.fullmatch(r"([\w-][\w.-]*/[\w.-]+)(?:@([\w./-]+))?", text)
    if hub is None:
        raise UsageError(
            f"There is no folder '{text}'; write local:FOLDER with a model that transformers has saved, "
            "local:FILE.gguf, or local:HUB-ID@REVISION."
        )
    name, revision = hub.groups()
    return Checkpoint(name, commit=commit_of("model", name, revision))


def packaged_checkpoint(name: str, home: Path) -> Checkpoint:
    """The checkpoint of a language model that packages carry, `packaged:NAME`, with or without `packaged:`.

    Raises:
        UsageError: there is none, it is not in the home folder, or it is damaged.
    """
    model = packaged_model(name)
    if not model.is_gguf:
        others = ", ".join(f"{PREFIX}{other}" for other, found in PACKAGED.items() if found.is_gguf)
        raise UsageError(f"{PREFIX}{name} recognises speech and predicts no text; take {others}.")
    (file,) = model.files
    return _gguf(name, folder_of_packaged(name, home) / file, home)


def _gguf(name: str, path: Path, home: Path) -> Checkpoint:
    require_gguf_file(path)
    file = GgufFile(path.absolute(), file_sha256(path), (home / "checkpoints").absolute())
    return Checkpoint(name, gguf=file)


def check_folder(folder: Path, name: str) -> None:
    """See that a folder holds a checkpoint that may be read.

    Raises:
        UsageError: it lacks a configuration or weights, or its weights are pickles.
    """
    if not folder.is_dir():
        raise UsageError(f"'{name}' is not a folder; give the folder that holds config.json and the weights.")
    if not (folder / "config.json").is_file():
        raise UsageError(f"The folder '{name}' holds no config.json, so it is not a model that transformers saved.")
    if any(folder.glob("*.safetensors")):
        return
    if pickle := next((file for pattern in PICKLES for file in folder.glob(pattern)), None):
        raise UsageError(
            f"The model '{name}' keeps its weights in a pickle ({pickle.name}), which can run any code when it is "
            "read; save it again with save_pretrained, as safetensors."
        )
    raise UsageError(f"The model '{name}' holds no weights (*.safetensors).")


def checkpoint_sha256(folder: Path) -> str:
    """A hash of what makes a checkpoint: every byte of its settings, templates, vocabularies and weights."""
    return folder_sha256(folder, (*FILES, "additional_chat_templates/*.jinja"))
