"""Answers kept from one run to the next, so that asking for the same again costs neither money nor time.

One file an answer, named by the hash of everything that was asked. A file appears whole or not at all, so that any
number of processes can share a folder.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

FORM = 1
"""Of the files; another one finds none of those before."""

_log = logging.getLogger(__name__)
_faulty: set[Path] = set()
"""Folders that something was wrong with; said once for each."""


class ResponseCache:
    """A folder of answers.

    Whatever is wrong with it (a damaged file, a full disk, a folder that cannot be written) is said once, and
    costs no more than the answers it would have given.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Where the answer of this name lies, whether it exists or not."""
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> dict[str, Any] | None:
        """The fields of an answer, or None where there is none that can be read."""
        try:
            kept = json.loads(self.path(key).read_bytes())
            if kept["key"] != key:
                raise ValueError("it is another answer's")
            return {name: _restored(value) for name, value in kept["answer"].items()}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            self._warn("read", self.path(key), error)
            return None

    def put(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keep the fields of an answer: what JSON can hold, and bytes."""
        target = self.path(key)
        partial = target.with_name(f"{key}.{secrets.token_hex(4)}.partial")
        content = json.dumps({"key": key, "answer": {name: _plain(value) for name, value in answer.items()}})
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_text(content, encoding="utf-8")
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            self._warn("written", target, error)

    def _warn(self, what: str, path: Path, error: Exception) -> None:
        if self.folder not in _faulty:
            _faulty.add(self.folder)
            reason = getattr(error, "strerror", None) or error
            _log.warning("The response cache cannot be %s (%s: %s); the run goes on without.", what, path, reason)


class KeptAnswers:
    """The answers that one piece of work may take from a cache.

    Args:
        cache: where they are.
        sample: of the independent answers to one request, which one: the repeat, the vote.
    """

    def __init__(self, cache: ResponseCache, sample: tuple[int, ...]) -> None:
        self._cache = cache
        self._sample = sample
        self._asked: Counter[str] = Counter()

    def key_of(self, request: Any) -> str:
        """The name of the next answer to this request.

        A judge whose answer cannot be read is asked the same again: that is another answer, with a name of its own.

        Args:
            request: everything that makes the answer what it is, as JSON can hold it.
        """
        content = _sha256(request)
        self._asked[content] += 1
        return _sha256([FORM, content, self._sample, self._asked[content]])

    def get(self, key: str) -> dict[str, Any] | None:
        """The fields of the answer of this name, or None where there is none that can be read."""
        return self._cache.get(key)

    def put(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keep the fields of an answer."""
        self._cache.put(key, answer)


_kept: ContextVar[KeptAnswers | None] = ContextVar("kept", default=None)


@contextmanager
def kept_answers(cache: ResponseCache | None, *sample: int) -> Iterator[None]:
    """Calls inside may be answered from the cache, with what earlier calls brought for the same sample.

    Outside, nothing is taken from a cache and nothing put there: a probe must reach the model.

    Args:
        cache: None for no cache.
        sample: of the independent answers to one request, which one: the repeat, the vote.
    """
    token = _kept.set(KeptAnswers(cache, sample) if cache is not None else None)
    try:
        yield
    finally:
        _kept.reset(token)


def current_answers() -> KeptAnswers | None:
    """The answers that the work under way may take; None where it may take none."""
    return _kept.get()


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode("ascii")} if isinstance(value, bytes) else value


def _restored(value: Any) -> Any:
    return base64.b64decode(value["base64"], validate=True) if isinstance(value, dict) else value
