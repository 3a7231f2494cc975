"""What a search has measured, kept in a file line by line, so that it goes on where it was interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from vivace_methods.protocol import MethodError


class Journal:
    """Numbers by what they are of; each is measured once, also over several attempts.

    Args:
        path: a file of JSON lines, made if it is not there; None keeps nothing.
        identity: what is searched, for what. A file that belongs to another search is begun anew.

    Raises:
        MethodError: the file cannot be written.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, str]) -> None:
        self._path = path
        self._known: dict[str, float] = {}
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            written = path.read_text() if path.is_file() else ""
            header, *lines = written.splitlines() or [""]
            if _read(header) == dict(identity):
                for line in map(_read, lines):
                    if line is not None:  # the last one may be cut short
                        self._known[str(line["of"])] = float(str(line["value"]))
                if not written.endswith("\n"):  # what comes next begins a line of its own
                    path.write_text(written + "\n")
            else:
                path.write_text(json.dumps(dict(identity)) + "\n")
        except OSError as error:
            raise MethodError(f"The journal {path} cannot be written: {error.strerror}.") from error

    def __len__(self) -> int:
        """How many numbers it knows."""
        return len(self._known)

    def get(self, of: str, measure: Callable[[], float]) -> float:
        """A number, measured unless it is known.

        Args:
            of: what it is of.
            measure: measures it.
        """
        if of not in self._known:
            value = measure()
            self._known[of] = value
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps({"of": of, "value": value}) + "\n")
        return self._known[of]


def _read(line: str) -> dict[str, object] | None:
    try:
        read = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None
