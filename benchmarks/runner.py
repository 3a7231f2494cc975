"""The same evaluation by Vivace and by inspect_ai, on one machine in one run: wall time, processor time, memory."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

# Nothing heavy is imported here: the peak memory of a new process is never less than that of the one it comes from.
from report import BenchmarkError, Report, arguments, compare, conclude, finished, running

FOLDER = Path(__file__).parent
ENVIRONMENT = FOLDER / ".cache" / "inspect-venv"
VIVACE = "vivace"
INSPECT = "inspect_ai"
INSPECT_PACKAGES = ("inspect_ai", "openai")
LIMITS = {"wall_s": 0.3, "cpu_s": 0.3, "memory_bytes": 0.8}
CONCURRENCY = 64
LATENCY_MS = 50.0
FULL_CONVERSATIONS = 452
"""As many as the public set holds."""
QUICK_CONVERSATIONS = 150
FEW_CONVERSATIONS = 6
"""For the warm-up, and for the cost of starting: what a run costs that has hardly anything to do."""
LONGEST_RUN_S = 900.0


@dataclass(frozen=True)
class Servers:
    """Where the loopback servers listen."""

    model_port: int
    judge_port: int

    def base(self, port: int) -> str:
        """A server's address for clients of OpenAI's API."""
        return f"http://127.0.0.1:{port}/v1"

    def take_counts(self) -> dict[str, dict[str, int]]:
        """What each server was asked since this was last called."""
        ports = {"model": self.model_port, "judge": self.judge_port}
        counts = {role: _request("GET", port, "/counts") for role, port in ports.items()}
        for port in ports.values():
            _request("POST", port, "/reset")
        return counts


def _request(method: str, port: int, path: str) -> dict[str, int]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        answer: dict[str, int] = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return answer


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process at the head of a group of its own; whatever is left of the group in the end is killed."""
    process = subprocess.Popen(list(command), start_new_session=True, **options)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            process.wait()


@contextmanager
def servers(latency_ms: float = LATENCY_MS) -> Iterator[Servers]:
    """The model's and the judge's server, running in a process of their own."""
    command = [sys.executable, str(FOLDER / "rivals" / "chat_servers.py"), "--latency-ms", str(latency_ms)]
    with started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise BenchmarkError("The loopback servers did not start; what they printed above says why.")
        ports = json.loads(line)
        yield Servers(ports["model"], ports["judge"])


@dataclass(frozen=True)
class Measurement:
    """One contestant's whole process, from start to end, with its children."""

    arm: str
    conversations: int
    wall_s: float
    cpu_s: float
    """User and system time."""
    memory_bytes: int
    """Peak resident size of the largest process."""
    counts: dict[str, dict[str, int]]
    """What the servers were asked."""

    @property
    def requests(self) -> int:
        """Chat requests in all."""
        return sum(count["requests"] for count in self.counts.values())


@dataclass(frozen=True)
class Work:
    """What both contestants are to do."""

    data: Path
    """A folder made by `conversations.py`."""
    servers: Servers
    scratch: Path
    """For the contestants' own files; each run gets a new folder in it."""
    concurrency: int = CONCURRENCY


Command = Callable[[Work, Path, int], list[str]]
"""The command of a contestant, of the work, a new folder, and the number of conversations."""


def vivace_command(flags: str) -> Command:
    """Vivace's command.

    Args:
        flags: the help of `vivace run`, which says what can be switched off: what the other contestant does not
            do (a check of the model's hearing) or what would save calls (a cache of answers).
    """
    off = [flag for flag in ("--no-hear", "--no-cache") if flag in flags]

    def command(work: Work, folder: Path, conversations: int) -> list[str]:
        return [
            *(sys.executable, "-m", "vivace", "run", "audio-multichallenge"),
            *("--data", str(work.data / "conversations.parquet")),
            *("--model", "litellm:openai/loopback", "--api-base", work.servers.base(work.servers.model_port)),
            *("--judge", "litellm:openai/judge", "--judge-api-base", work.servers.base(work.servers.judge_port)),
            *("--judge-prompt", str(work.data / "prompt.txt")),
            *("--concurrency", str(work.concurrency), "--limit", str(conversations), "--home", str(folder)),
            *off,
        ]  # fmt: skip

    return command


def vivace_flags() -> str:
    """The help of `vivace run`."""
    command = [sys.executable, "-m", "vivace", "run", "audio-multichallenge", "--help"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"`vivace run --help` fails ({_last_line(done.stderr)}); install Vivace with make.")
    return done.stdout


def inspect_command(work: Work, folder: Path, conversations: int) -> list[str]:
    """inspect_ai's command."""
    return [
        *(str(ENVIRONMENT / "bin" / "python"), str(FOLDER / "rivals" / "runner_inspect.py"), str(work.data)),
        *("--api-base", work.servers.base(work.servers.model_port)),
        *("--judge-api-base", work.servers.base(work.servers.judge_port)),
        *("--concurrency", str(work.concurrency), "--limit", str(conversations), "--logs", str(folder)),
    ]  # fmt: skip


def environment() -> dict[str, str]:
    """The contestants' environment: without keys, settings and proxies of whoever runs this."""
    own = ("VIVACE_", "INSPECT_", "OPENAI_", "LITELLM_", "PYTHON")
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(own) and not key.lower().endswith(("_proxy", "_api_key"))
    }
    return {**kept, "OPENAI_API_KEY": "loopback"}


def measure(arm: str, command: Command, work: Work, conversations: int) -> Measurement:
    """Run one contestant to its end.

    Raises:
        BenchmarkError: it failed, or takes much too long.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{arm}-", dir=work.scratch))
    work.servers.take_counts()
    output = folder.with_suffix(".txt")
    own = {"XDG_DATA_HOME": str(folder / "data"), "XDG_CACHE_HOME": str(folder / "cache")}
    with output.open("wb") as file:
        start = time.perf_counter()
        with started(
            command(work, folder, conversations),
            cwd=folder,
            env={**environment(), **own},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        ) as process:
            status, usage = _wait(process, arm)
            wall_s = time.perf_counter() - start
    if status != 0:
        tail = output.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise BenchmarkError(f"The {arm} arm ended with status {status}; it printed:\n{tail}".rstrip())
    counts = work.servers.take_counts()
    shutil.rmtree(folder)  # each run fills it with hundreds of megabytes
    cpu_s = usage.ru_utime + usage.ru_stime
    unit = 1 if sys.platform == "darwin" else 1024
    return Measurement(arm, conversations, wall_s, cpu_s, usage.ru_maxrss * unit, counts)


def _wait(process: subprocess.Popen[bytes], arm: str) -> tuple[int, Any]:
    """A process's exit status, and what it and the children it waited for have used."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise BenchmarkError(f"The {arm} arm did not end within {LONGEST_RUN_S:.0f} s.")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_RUN_S)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage


def check_same_work(first: Measurement, second: Measurement) -> None:
    """See that both contestants asked for the same.

    Raises:
        BenchmarkError: they did not, and comparing them would mean nothing.
    """
    for role in first.counts:
        for what in ("requests", "audio_parts"):
            one, other = first.counts[role][what], second.counts[role][what]
            if one != other or (what == "requests" and one == 0):
                raise BenchmarkError(
                    f"The contestants did different work: the {role}'s server had {one} {what.replace('_', ' ')} "
                    f"from {first.arm} and {other} from {second.arm}."
                )
    one, other = (sum(count["request_bytes"] for count in taken.counts.values()) for taken in (first, second))
    if abs(one - other) > 0.02 * one:
        raise BenchmarkError(f"The contestants sent different audio: {one} and {other} bytes of requests.")


def build_environment() -> None:
    """Build inspect_ai's environment where it is not there yet.

    Raises:
        BenchmarkError: pip finds no inspect_ai, most often because there is no network.
    """
    complete = ENVIRONMENT / "complete"
    if complete.exists():
        return
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    print(f"building inspect_ai's environment in {ENVIRONMENT} (once)", file=sys.stderr)
    pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", str(ENVIRONMENT)], [*pip, *INSPECT_PACKAGES]):
        with started(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            printed = process.communicate()[0].decode(errors="replace")
        if process.returncode != 0:
            shutil.rmtree(ENVIRONMENT, ignore_errors=True)
            raise BenchmarkError(
                f"inspect_ai's environment cannot be built ({_last_line(printed)}); it needs the network once."
            )
    complete.touch()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("ERROR: ").rstrip(".") if lines else "no message"


def inspect_versions() -> dict[str, str]:
    """The versions of what matters in inspect_ai's environment."""
    names = [*INSPECT_PACKAGES, "httpx", "pydantic"]
    script = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    python = str(ENVIRONMENT / "bin" / "python")
    done = subprocess.run([python, "-c", script, *names], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"inspect_ai's environment is damaged; delete {ENVIRONMENT} and run this again.")
    versions: dict[str, str] = json.loads(done.stdout)
    return versions


Pair = tuple[Measurement, Measurement]


def run_pair(flags: str, work: Work, conversations: int) -> Pair:
    """Vivace, then inspect_ai, on the same work."""
    pair = (
        measure(VIVACE, vivace_command(flags), work, conversations),
        measure(INSPECT, inspect_command, work, conversations),
    )
    check_same_work(*pair)
    for taken in pair:
        print(
            f"{taken.arm:<10}  {taken.conversations:>4} conversations  {taken.requests:>5} calls  "
            f"{taken.wall_s:7.2f} s  {taken.cpu_s:7.2f} s of processor  {taken.memory_bytes / 2**20:6.0f} MiB",
            file=sys.stderr,
        )
    return pair


def summarise(few: Sequence[Pair], pairs: Sequence[Pair], versions: dict[str, str], seed: int) -> Report:
    """The report of all pairs.

    Args:
        few: pairs with few conversations, which cost little more than starting.
        pairs: pairs with all of them.
        versions: of the packages in inspect_ai's environment.
        seed: what the conversations were made from.
    """
    taken = pairs[0][0]
    rows = []
    for metric in LIMITS:
        values = [(float(getattr(one, metric)), float(getattr(other, metric))) for one, other in pairs]
        floor = None
        if metric == "wall_s":
            shortest = taken.requests * LATENCY_MS / 1000 / CONCURRENCY
            floor = shortest / statistics.median(other for _, other in values)
        case = f"{taken.conversations} conversations"
        rows.append(compare(case, VIVACE, INSPECT, metric, values, floor=floor, headline=True))
    for metric in LIMITS:
        values = [(float(getattr(one, metric)), float(getattr(other, metric))) for one, other in few]
        rows.append(compare(f"{FEW_CONVERSATIONS} conversations", VIVACE, INSPECT, metric, values))
    for metric in ("wall_s", "cpu_s"):
        base = [_median(few, place, metric) for place in (0, 1)]
        values = [(getattr(one, metric) - base[0], getattr(other, metric) - base[1]) for one, other in pairs]
        if all(more > 0 for pair in values for more in pair):  # a busy machine can make starting look dearer
            rows.append(compare("without starting", VIVACE, INSPECT, metric, values))
    measurements = [asdict(one) for pair in (*few, *pairs) for one in pair]
    details = running(
        inspect_environment=versions,
        work={
            "seed": seed,
            "concurrency": CONCURRENCY,
            "latency_ms": LATENCY_MS,
            "calls": taken.requests,
            "cpu_ms_per_call": {
                arm: round(1000 * _per_call(few, pairs, place), 3) for place, arm in enumerate((VIVACE, INSPECT))
            },
        },
        measurements=measurements,
    )
    return Report("runner", details, rows, LIMITS)


def _median(pairs: Sequence[Pair], place: int, metric: str) -> float:
    return float(statistics.median(getattr(pair[place], metric) for pair in pairs))


def _per_call(few: Sequence[Pair], pairs: Sequence[Pair], place: int) -> float:
    """Seconds of processor time that one more call costs."""
    more = _median(pairs, place, "cpu_s") - _median(few, place, "cpu_s")
    return more / (pairs[0][place].requests - few[0][place].requests)


def make_data(folder: Path, count: int, seed: int) -> Path:
    """Make the conversations, in a process of its own that takes its memory with it."""
    command = [sys.executable, str(FOLDER / "rivals" / "conversations.py"), str(folder)]
    with started([*command, "--count", str(count), "--seed", str(seed)]) as process:
        if process.wait() != 0:
            raise BenchmarkError("The conversations could not be made; what was printed above says why.")
    return folder


def benchmark(options: argparse.Namespace) -> int:
    """Everything."""
    conversations = options.conversations or (QUICK_CONVERSATIONS if options.quick else FULL_CONVERSATIONS)
    count = options.pairs or (1 if options.quick else 3)
    build_environment()
    flags, versions = vivace_flags(), inspect_versions()
    with tempfile.TemporaryDirectory(prefix="runner-benchmark-") as scratch, servers() as running_servers:
        data = make_data(Path(scratch) / "data", conversations, options.seed)
        work = Work(data, running_servers, Path(scratch))
        # The first runs of all read libraries from a cold disk; they count for neither contestant.
        run_pair(flags, work, FEW_CONVERSATIONS)
        few, pairs = [], []
        for _ in range(count):
            few.append(run_pair(flags, work, FEW_CONVERSATIONS))
            pairs.append(run_pair(flags, work, conversations))
    return conclude(summarise(few, pairs, versions, options.seed), options)


def main() -> int:
    """Run the benchmark."""
    parser = arguments(
        __doc__ or "", f"{QUICK_CONVERSATIONS} conversations instead of {FULL_CONVERSATIONS}, and one pair of runs"
    )
    parser.add_argument("--conversations", type=int, help="how many, in place of the usual number")
    parser.add_argument("--pairs", type=int, help="pairs of runs, in place of 3 (with --quick 1)")
    parser.add_argument("--seed", type=int, default=0, help="what the conversations are made from")
    options = parser.parse_args()
    for name, least in (("conversations", FEW_CONVERSATIONS + 1), ("pairs", 1)):
        if getattr(options, name) is not None and getattr(options, name) < least:
            parser.error(f"--{name} must be {least} or more")

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # So that an end from outside takes the same way as Ctrl-C, and leaves no processes behind either.
    signal.signal(signal.SIGTERM, interrupt)
    return finished(benchmark, options)


if __name__ == "__main__":
    sys.exit(main())
