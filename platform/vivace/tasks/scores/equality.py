"""Mathematical equality by math-verify, asked of a process of its own, which ends with what it cannot decide soon.

Expressions from a model may take any time and memory to compute (9^9^9^9), inside calls that no signal handler
interrupts and in threads, where math-verify's own time limit does not work. So each question has a budget of
processor time, and the process one of memory; the system ends it beyond, and another takes its place.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from threading import Lock

from vivace.machine.optional_packages import require_math_verify
from vivace.tasks.base import Sample
from vivace.tasks.scores.stated_results import stated, unwrapped

SECONDS = 10
"""Of processor time that an answer may take."""
LONGEST_RESULT = 1000
"""Characters; no problem of MATH has a result as long."""
_MEMORY = 4 << 30


def math_verify(answer: str, sample: Sample) -> float:
    """1 where math-verify finds the result of the answer equal to a reference's, or where it is that text.

    The result stands where `number` looks for it. What math-verify cannot decide in time is not equal.

    Raises:
        UsageError: math-verify is not installed.
    """
    require_math_verify()
    found, place = stated(answer)
    wanted = [stated(reference)[0] for reference in sample.references]
    if unwrapped(found) in map(unwrapped, wanted):
        return 1.0
    asked = f"\\boxed{{{found}}}" if place == "box" and len(found) <= LONGEST_RESULT else found[-LONGEST_RESULT:]
    sensible = [each for each in wanted if len(each) <= LONGEST_RESULT]
    return float(any(_ASKED.same(f"\\boxed{{{each}}}", asked) for each in sensible))


class _Process:
    """The process that is asked; begun with the first question, and again after one that ended it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: subprocess.Popen[str] | None = None

    def same(self, reference: str, answer: str) -> bool:
        with self._lock:
            running = self._running or self._begin()
            assert running.stdin is not None and running.stdout is not None
            try:
                running.stdin.write(json.dumps([reference, answer]) + "\n")
                running.stdin.flush()
                said = running.stdout.readline()
            except BrokenPipeError:
                said = ""
            if not said:
                self._end()
            return said == "true\n"

    def _begin(self) -> subprocess.Popen[str]:
        self._running = subprocess.Popen(
            [sys.executable, "-m", "vivace.tasks.scores.equality"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        return self._running

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._running is not None:
            self._running.kill()
            self._running.communicate()
            self._running = None


_ASKED = _Process()
atexit.register(_ASKED.close)


def main() -> None:
    """Answer questions, a line each: JSON lists of reference and answer, to which true or false is said."""
    import resource
    import signal

    from math_verify import parse, verify

    answers, sys.stdout = sys.stdout, sys.stderr
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY if most < 0 else min(_MEMORY, most), most))
    for line in sys.stdin:
        reference, answer = json.loads(line)
        # Its signal has no handler, so that the system ends this process, whatever it is doing.
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            wanted, found = (parse(text, parsing_timeout=None) for text in (reference, answer))
            same = bool(verify(wanted, found, timeout_seconds=None))
        except Exception:  # whatever an expression raises, it was not found to be equal
            same = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(f"{json.dumps(same)}\n")
        answers.flush()


if __name__ == "__main__":
    main()
