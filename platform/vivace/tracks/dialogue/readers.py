"""Where conversations come from: the demo set, parquet and JSONL files, and datasets on the hub at a revision."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vivace.errors import UnreachableError, UsageError
from vivace.models.replay import read_json_lines
from vivace.tracks.dialogue.conversations import AUDIO_COLUMNS, ConversationSet, Table, read_conversations
from vivace_rubrics.prompts import prompt_from_card

PINNED_REVISIONS = {"ScaleAI/audiomc": "90ea11040fd05f41cf433b90f97ada45d847c500"}
"""The revision taken of a known dataset where none is named."""


def open_conversations(data: str) -> ConversationSet:
    """The conversations that `--data` names: `demo`, a file or folder, or `hub-id@revision`.

    Raises:
        UsageError: there is no such source, or what it holds is not a set of conversations.
        UnreachableError: the hub does not answer, and the dataset is not in its local cache.
    """
    if data == "demo":
        from vivace.demo import DATA

        return _local(DATA, name="demo")
    path = Path(data)
    if path.exists():
        return _local(path, name=path.name)
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", data) and path.suffix not in (".parquet", ".jsonl"):
        dataset, _, revision = data.partition("@")
        return _from_hub(dataset, revision or PINNED_REVISIONS.get(dataset))
    raise UsageError(
        f"There is no file or folder '{data}'; --data takes demo, a .parquet or .jsonl file, a folder of "
        "parquet files, or hub-id@revision."
    )


def _local(path: Path, name: str) -> ConversationSet:
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"The folder '{path}' holds no .parquet files.")
    table: Table = JsonLinesTable(path) if path.suffix == ".jsonl" else ParquetTable(files)
    folder = path if path.is_dir() else path.parent
    return ConversationSet(
        name=name,
        revision=_sha256_of(files),
        conversations=read_conversations(table),
        has_audio=any(column in table.columns for column in AUDIO_COLUMNS),
        judge_prompt=_local_prompt(folder),
        table=table,
    )


def _sha256_of(files: Sequence[Path]) -> str:
    digests = []
    for file in files:
        with file.open("rb") as opened:
            digests.append(hashlib.file_digest(opened, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _local_prompt(folder: Path) -> str | None:
    """The prompt beside the data: `judge_prompt.txt`, else the one printed in the card `README.md`."""
    prompt, card = folder / "judge_prompt.txt", folder / "README.md"
    if prompt.is_file():
        return prompt.read_text(encoding="utf-8").strip()
    if card.is_file():
        return prompt_from_card(card.read_text(encoding="utf-8"))
    return None


class JsonLinesTable:
    """A JSONL file of the dataset's text columns: a transcript-input control, without audio."""

    def __init__(self, path: Path) -> None:
        self.source = f"the data '{path}'"
        self._rows = [{key.lower(): value for key, value in row.items()} for _, row in read_json_lines(path, "data")]
        self.columns = sorted({key for row in self._rows for key in row} - set(AUDIO_COLUMNS))

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Every row with these columns."""
        for row in self._rows:
            yield {column: row.get(column) for column in columns}


class ParquetTable:
    """One or more parquet files, read in small batches so that hours of audio never lie in memory."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.source = f"the data '{files[0] if len(files) == 1 else files[0].parent}'"
        self._files = files
        self._names = {name.lower(): name for name in self._open(files[0]).schema_arrow.names}
        self.columns = list(self._names)

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Every row with these columns."""
        import pyarrow

        names = [self._names[column] for column in columns if column in self._names]
        heavy = any(column in AUDIO_COLUMNS for column in columns)
        for file in self._files:
            try:
                for batch in self._open(file).iter_batches(batch_size=4 if heavy else 256, columns=names):
                    for row in batch.to_pylist():
                        yield {key.lower(): value for key, value in row.items()}
            except (pyarrow.ArrowException, OSError) as error:
                raise UsageError(f"The parquet file '{file}' is damaged ({error}).") from error

    def _open(self, file: Path) -> Any:
        import pyarrow
        import pyarrow.parquet

        try:
            if file.stat().st_size == 0:
                raise UsageError(f"The parquet file '{file}' is empty.")
            return pyarrow.parquet.ParquetFile(file)
        except (pyarrow.ArrowException, OSError) as error:
            raise UsageError(
                f"The file '{file}' is not a whole parquet file ({' '.join(str(error).split())[:200]})."
            ) from error


class HubTable:
    """A dataset of the hub, read through `datasets` with its audio left undecoded."""

    def __init__(self, name: str, revision: str) -> None:
        import datasets

        self.source = f"the dataset '{name}'"
        dataset = datasets.load_dataset(name, revision=revision, split="test")
        for column, feature in dataset.features.items():
            if isinstance(feature, datasets.Audio):
                dataset = dataset.cast_column(column, datasets.Audio(decode=False))
        self._dataset = dataset
        self._names = {column.lower(): column for column in dataset.column_names}
        self.columns = list(self._names)

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Every row with these columns."""
        names = [self._names[column] for column in columns if column in self._names]
        for row in self._dataset.select_columns(names):
            yield {key.lower(): value for key, value in row.items()}


def _from_hub(name: str, revision: str | None) -> ConversationSet:
    import httpx
    import huggingface_hub
    from huggingface_hub import errors

    try:
        commit = revision
        if not (revision and re.fullmatch(r"[0-9a-f]{40}", revision)):
            commit = str(huggingface_hub.HfApi().dataset_info(name, revision=revision).sha)
        assert commit is not None
        table = HubTable(name, commit)
        card = _hub_card(name, commit)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise UsageError(
            f"The hub has no dataset '{name}' at revision '{revision or 'main'}'; check the name, the "
            "revision, and that you may read it."
        ) from error
    except (httpx.TransportError, ConnectionError, errors.OfflineModeIsEnabled) as error:
        raise UnreachableError(
            f"The dataset hub does not answer ({str(error)[:200]}); give a local file with --data, or try again."
        ) from error
    except (errors.HfHubHTTPError, ValueError, OSError) as error:
        raise UsageError(f"The dataset '{name}' cannot be read ({' '.join(str(error).split())[:300]}).") from error
    return ConversationSet(
        name=name,
        revision=commit,
        conversations=read_conversations(table),
        has_audio=any(column in table.columns for column in AUDIO_COLUMNS),
        judge_prompt=prompt_from_card(card) if card else None,
        table=table,
    )


def _hub_card(name: str, commit: str) -> str | None:
    import huggingface_hub
    from huggingface_hub import errors

    try:
        path = huggingface_hub.hf_hub_download(name, "README.md", repo_type="dataset", revision=commit)
    except errors.EntryNotFoundError:
        return None
    return Path(path).read_text(encoding="utf-8")
