"""A process that holds a model, as its adapter sees it: asked, waited for, ended, and asked how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
from contextlib import suppress
from typing import Any

DYING_S = 5.0


class ModelProcess:
    """A process that holds a model."""

    def __init__(self, program: list[str]) -> None:
        self.description: str | None = None
        self.hears = True
        self.overdue = False
        """Whether it was ended for taking too long."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
        self._process = subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            # Ctrl-C goes to a whole group of processes, but the first one shall let the reply be finished.
            start_new_session=True,
            env={
                **os.environ,
                "HF_HUB_OFFLINE": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "TRANSFORMERS_VERBOSITY": "error",
                "TOKENIZERS_PARALLELISM": "false",
            },
        )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def ask(self, message: dict[str, Any], limit_s: float) -> dict[str, Any] | None:
        """Send one message and wait for the answer; None if it died, or was ended after `limit_s` seconds."""
        assert self._process.stdin is not None and self._process.stdout is not None
        timer = threading.Timer(limit_s, self._end_overdue)
        timer.start()
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (OSError, ValueError):  # its end of the pipe is closed, or ours is
            line = ""
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(DYING_S)  # its pipes close a moment before it has ended
            return None
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:  # something in it writes where it should not, and what comes next would be misread, too
            return None
        return answer

    def _end_overdue(self) -> None:
        self.overdue = True
        self.kill()

    def kill(self) -> None:
        """End it at once, from any thread."""
        self._process.kill()

    def end(self) -> str:
        """End it if it still runs, and say how it ended."""
        runs = self._process.poll() is None
        self._process.kill()
        status = self._process.wait()
        if self.overdue:
            how = "its process gave no answer in time and was ended"
        elif runs:
            how = "its process was ended"
        elif status < 0:
            how = f"its process was ended by {signal.Signals(-status).name}"
        else:
            how = f"its process ended by itself with exit code {status}"
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # unsent bytes have nowhere to go
                if pipe is not None:
                    pipe.close()
        last_words = self._last_words()
        self._errors.close()
        return f"{how} ({last_words})" if last_words else how

    def _last_words(self) -> str:
        """The last line it wrote to stderr."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - 4000))
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
