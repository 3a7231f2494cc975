"""Processes that have torch and transformers from their start, where importing them would take seconds each time.

A server that has imported them forks a process for each command. A small program stands for the interpreter: it
hands `-m MODULE …`, `-c PROGRAM` or `SCRIPT.py …` to the server with its own streams, folder and environment, and
ends as the command ends; if it is killed, so is the command. What a fork cannot do as a new interpreter would, it
leaves to one. The processes that run tests side by side are such forks, too.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

NEEDED = {"OMP_NUM_THREADS": "1"}
"""What a command must be given; with another number of threads a new interpreter runs it."""
OWN = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "TRANSFORMERS_VERBOSITY": "error"}
"""What only the server is given."""
READ_AT_IMPORT = (
    "OMP_",
    "MKL_",
    "HF_",
    "TRANSFORMERS_",
    "TOKENIZERS_",
    "TORCH",
    "PYTORCH",
    "TRITON",
    "CUDA",
    "PYTHON",
)
SET_AFTERWARDS = (
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "HF_HUB_DISABLE_PROGRESS_BARS",
    "TRANSFORMERS_VERBOSITY",
    "TOKENIZERS_PARALLELISM",
    "TORCHINDUCTOR_CACHE_DIR",  # which a process sets for itself that compiles
    "HF_XET_HIGH_PERFORMANCE",  # which a process sets for itself that imports lm_eval
)
"""Read at import, too, but a fork can make up for it, or it is of no consequence here."""
MODULES = (
    "transformers", "transformers.models.llama.modeling_llama", "transformers.models.olmoe.modeling_olmoe",
    "transformers.models.auto.processing_auto", "transformers.models.auto.modeling_auto",
    "transformers.models.qwen2_audio.modeling_qwen2_audio", "transformers.models.qwen2_audio.processing_qwen2_audio",
    "vivace.cli.running.execution", "vivace.tracks.efficiency.track",
    "vivace.audio.convert", "vivace.models.local.method", "vivace_methods.sparsity.activation",
    "vivace.tracks.efficiency.measured_models", "vivace.tracks.efficiency.fitting_texts",
    "vivace.tracks.efficiency.prompts", "vivace.tasks.perplexity",
    "vivace_methods.timing.measurement", "vivace_methods.timing.baseline_choice", "vivace_methods.registry",
)  # fmt: skip
PACKAGES = ("vivace", "vivace_methods", "vivace_rubrics")
"""All of whose modules are there too, but those that are programs: each command would import some hundred of them."""
FOR_COMMANDS = ("av", "rich.table", "sqlalchemy.dialects.sqlite.pysqlite", "whisper_normalizer.english")
"""What commands import besides."""
FOR_TESTS = (
    "alembic.command", "dbos", "fastapi", "litellm", "moto.server", "pandas", "playwright.sync_api", "scipy.stats",
    "statsmodels.formula.api", "streamlit.testing.v1", "torch._inductor",
)  # fmt: skip
"""What those that run tests need besides."""
PAIRS = 2
"""Prompts and twins that measured runs are audited by, in place of the twelve of a user's: most of their time."""
FITTED = 1024
"""Tokens that arms without a recipe are fitted to there, in place of a user's eight thousand."""
APART = "apart"
"""A file in the program's folder: a line for each command that got a new interpreter, with the variables why."""
ALL_PAIRS = "TESTS_WITH_ALL_PAIRS"
"""A variable that leaves audits and probes as they are."""
LAUNCHER = """#!{python} -IS
import json, os, signal, socket, sys
flags = [word for word in sys.argv[1:3] if word in ("-P", "-u")]
words, names = sys.argv[1 + len(flags) :], {names!r}
settings = {{
    name: value for name, value in os.environ.items() if name.startswith(names) and name not in {set_afterwards!r}
}}
changed = sorted(name for name, _ in set(settings.items()) ^ set({settings!r}.items()))
if not words or not (words[0] in ("-m", "-c") or words[0].endswith(".py")) or changed:
    with open({apart!r}, "a") as file:
        print(*changed or ["other words"], file=file)
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
asked = {{
    "words": words, "safe": "-P" in flags, "cwd": os.getcwd(), "environment": dict(os.environ),
    "executable": {python!r} if words[0] == "-c" else sys.argv[0],
}}
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({path!r})
    socket.send_fds(server, [json.dumps(asked).encode()], [0, 1, 2])
    for stream in (0, 1, 2):
        os.close(stream)
    code = int(server.recv(64) or b"1")
if code < 0:
    if -code != signal.SIGKILL:  # whose effect nobody can change
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@contextmanager
def preloaded(folder: Path) -> Iterator[str]:
    """A program that stands for the interpreter, while the context lasts; its files lie in the folder."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(str(folder / "socket"))
    listening.listen(64)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(READ_AT_IMPORT)}
    command, environment = [sys.executable, __file__, str(listening.fileno())], kept | _settings() | OWN
    with listening, subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, pass_fds=[listening.fileno()], start_new_session=True
    ) as server:  # fmt: skip
        listening.close()  # the server's own is left: after it nobody can connect, and wait in vain
        yield _launcher(folder / "python", folder / "socket")
        assert server.stdin is not None
        server.stdin.close()  # which it takes for the end


@contextmanager
def collected(program: str, files: Sequence[str]) -> Iterator[str]:
    """A further program, whose processes have imported tests as well, and don't each spend seconds on that.

    Args:
        program: of `preloaded`.
        files: or folders of tests.
    """
    path = Path(program).with_name("tests")
    tests, function = str(Path(__file__).parents[1]), serve_collected.__name__
    begin = f"import sys; sys.path.insert(0, {tests!r}); from {__name__} import {function}"
    server = subprocess.Popen(
        [program, "-c", f"{begin}; {function}({str(path)!r}, {list(files)!r})"],
        env={**os.environ, **NEEDED},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with server:
        assert server.stdin is not None and server.stdout is not None
        assert server.stdout.read(1), "the tests could not be collected"
        yield _launcher(Path(program).with_name("python-tests"), path)
        server.stdin.close()


def serve_collected(path: str, files: Sequence[str]) -> None:
    """Collect tests, which imports them, and then fork a process for each command.

    Args:
        path: of the socket.
        files: or folders of tests.
    """
    import gc
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    import pytest

    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # those that run them say what is wrong with them
        pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", "-p", "no:terminal", *files])
    assert len([*Path("/proc/self/task").iterdir()]) == 1, "a process that forks has one thread"
    gc.freeze()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(path)
    listening.listen(64)
    os.write(1, b".")
    _Server(listening).serve()
    os._exit(0)


def _settings() -> dict[str, str]:
    """What libraries read when they are imported, as it is here."""
    here = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(READ_AT_IMPORT) and name not in SET_AFTERWARDS
    }
    return here | NEEDED


def _launcher(program: Path, path: Path) -> str:
    """Write the small program that hands its words to the server at a path."""
    program.write_text(
        LAUNCHER.format(
            python=sys.executable,
            names=READ_AT_IMPORT,
            set_afterwards=SET_AFTERWARDS,
            settings=_settings(),
            path=str(path),
            apart=str(program.with_name(APART)),
        )
    )
    program.chmod(0o755)
    return str(program)


class _Server:
    """Forks a process for each command. It has one thread, as a process that forks must."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._waiting: dict[int, socket.socket] = {}
        """Who is told how a process has ended."""

    def serve(self) -> None:
        """Serve until standard input is closed."""
        import selectors

        told, tells = os.pipe()
        os.set_blocking(tells, False)
        os.set_blocking(told, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(tells)
        watch = selectors.DefaultSelector()
        watch.register(self._listening, selectors.EVENT_READ)
        watch.register(0, selectors.EVENT_READ)
        watch.register(told, selectors.EVENT_READ)
        while True:
            for key, _ in watch.select():
                if key.fd == 0:
                    return
                if key.fd == told:
                    with suppress(BlockingIOError):
                        os.read(told, 4096)
                    for ended in self._ended():
                        watch.unregister(ended)
                        ended.close()
                elif key.fileobj is self._listening:
                    connection, _ = self._listening.accept()
                    pid = self._start(connection, [told, tells])
                    self._waiting[pid] = connection
                    watch.register(connection, selectors.EVENT_READ, pid)
                elif self._waiting.get(key.data) is key.fileobj:  # it was killed
                    watch.unregister(key.fileobj)
                    key.fileobj.close()
                    del self._waiting[key.data]
                    os.kill(key.data, signal.SIGKILL)

    def _ended(self) -> Iterator[socket.socket]:
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                connection = self._waiting.pop(found[0], None)
                if connection is not None:
                    with suppress(OSError):
                        connection.send(str(os.waitstatus_to_exitcode(found[1])).encode())
                    yield connection

    def _start(self, connection: socket.socket, own: list[int]) -> int:
        message, streams, _, _ = socket.recv_fds(connection, 2**20, 3)
        pid = os.fork()
        if pid:
            for stream in streams:
                os.close(stream)
            return pid
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for each in (self._listening, connection, *self._waiting.values()):
                each.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            for number in (*streams, *own):
                os.close(number)
            code = _run(json.loads(message))
        finally:
            os._exit(code)


def _run(asked: dict[str, Any]) -> int:
    """Run a module or a program as a new interpreter would, and return its exit code."""
    import runpy
    import traceback

    os.setsid()
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    _read_environment()
    kind, *words = asked["words"]
    sys.executable, sys.argv = asked["executable"], {"-m": words, "-c": ["-c", *words[1:]]}.get(kind, asked["words"])
    if kind != "-c" and ALL_PAIRS not in os.environ:
        _shorten_measured_runs()
    if not asked["safe"]:
        sys.path.insert(0, {"-m": asked["cwd"], "-c": ""}.get(kind, str(Path(sys.argv[0]).absolute().parent)))
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 (they last as long as the process)
        for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    try:
        if kind == "-m":
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            main = sys.modules["__main__"] = ModuleType("__main__")
            exec(words[0], main.__dict__)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return code


def _read_environment() -> None:
    """Have libraries know what they read of the environment when they were imported."""
    from importlib import reload

    import datasets.config
    import huggingface_hub.constants
    from transformers.utils import logging

    for module in (huggingface_hub.constants, datasets.config):
        before = dict(vars(module))
        reload(module)
        changed = {name: value for name, value in vars(module).items() if before.get(name) != value}
        for name, other in list(sys.modules.items()):
            if name.startswith(("huggingface_hub.", "datasets.", "transformers.")):
                for each in changed.keys() & vars(other).keys():
                    if vars(other)[each] == before.get(each):  # it has taken over what was there
                        setattr(other, each, changed[each])
    logging.set_verbosity(logging.log_levels.get(os.environ.get("TRANSFORMERS_VERBOSITY", ""), logging.WARNING))


def _shorten_measured_runs() -> None:
    """Audit by few prompts, fit to few tokens, and probe the machine by the smallest arrays and products."""
    from vivace.tracks.efficiency import fitting_texts
    from vivace_methods.timing import floor
    from vivace_methods.timing.measurement import measure_arms

    assert measure_arms.__kwdefaults__ is not None
    measure_arms.__kwdefaults__["audited"] = PAIRS
    fitting_texts.TOKENS = FITTED
    floor.CPU_READS, floor.CPU_SIDES = floor.CPU_READS[:1], floor.CPU_SIDES[:1]


def _modules_of(packages: Sequence[str]) -> Iterator[str]:
    """The modules of some packages, but those that do something when they are run."""
    from importlib import import_module
    from pkgutil import walk_packages

    for package in packages:
        for found in walk_packages(import_module(package).__path__, f"{package}."):
            source = found.module_finder.find_spec(found.name).loader.get_source(found.name)  # type: ignore
            if "__main__" not in found.name + source:
                yield found.name


if __name__ == "__main__":
    import gc
    from contextlib import redirect_stderr
    from importlib import import_module
    from io import StringIO

    sys.path.pop(0)  # the tests' folder: a program's modules are found as they are without it
    for name in MODULES:
        import_module(name)
    for name in (*_modules_of(PACKAGES), *FOR_COMMANDS, *FOR_TESTS):
        with suppress(ImportError):  # of a package that is not installed
            import_module(name)
    from transformers import PreTrainedConfig

    from vivace.tracks.efficiency.measured_models import loaded
    from vivace.zoo.shipped import folder_of

    # A third of the time in which a tiny checkpoint is loaded: values are checked against one type after the other,
    # and of each that is not theirs a message is made that nobody reads.
    PreTrainedConfig.__repr__ = object.__repr__

    with redirect_stderr(StringIO()):  # a bar of progress
        for name in ("moe", "dense"):  # loading a checkpoint prepares more, once for all
            loaded(folder_of(name), None, None, dtype="float32", device="cpu", seed=0)
    gc.freeze()
    _Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    os._exit(0)  # some of what was imported would complain of leaks
