"""The programs as a stranger uses them: in pipes, on full disks, in bare locales, and with Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.datasets import conversation_rows, write_jsonl
from support.program import PROGRAM, environment, start_vivace, vivace


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with one imported run of 300 conversations, whose export is larger than a pipe holds."""
    folder = tmp_path_factory.mktemp("stranger")
    data = write_jsonl(folder / "texts.jsonl", conversation_rows(300, audio=False))
    verdicts = [
        {"id": f"conversation{n:04d}", "response": "naïve – yes", "criteria_met": [True, False]} for n in range(300)
    ]
    done = vivace(
        "import", "audio-multichallenge", "--data", data, "--verdicts", write_jsonl(folder / "v.jsonl", verdicts),
        "--model", "Modèle", "--judge-name", "people", "--home", folder / "home",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "home"


def in_shell(line: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which $vivace is the program."""
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False,
        env=environment(vivace=" ".join(PROGRAM), VIVACE_HOME=str(home), **variables),
    )  # fmt: skip


def test_a_reader_that_leaves_early_is_no_error_to_talk_about(home: Path) -> None:
    identifier = json.loads(vivace("leaderboard", "--format", "json", "--home", home).stdout)[0]["run"]
    for format in ("jsonl", "csv"):
        done = in_shell(f"$vivace export {identifier} --format {format} | head -n 1", home)
        assert len(done.stdout.splitlines()) == 1
        assert done.stderr == ""


def test_a_full_disk_is_one_sentence(home: Path) -> None:
    done = in_shell("$vivace leaderboard > /dev/full", home)
    assert done.returncode == 1
    assert "No space left" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_bare_locale_gets_the_data_in_utf8(home: Path) -> None:
    done = in_shell("$vivace leaderboard --format csv && $vivace leaderboard", home, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Modèle") == 2


def test_ctrl_c_while_starting_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    process = start_vivace(
        "run", "audio-multichallenge", "--data", "demo", "--model", "replay:x", "--judge", "checks", cwd=tmp_path
    )
    loaded, latest = Path(f"/proc/{process.pid}/maps"), time.monotonic() + 30
    while "pydantic" not in loaded.read_text() and time.monotonic() < latest:
        time.sleep(0.01)  # the verb's own modules are being imported from here on
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode in (130, 2)  # 2: it had found out already that there is no file x
    assert "Traceback" not in said


def test_the_two_programs_are_installed_and_say_their_version() -> None:
    from vivace import __version__

    assert vivace("--version").stdout.strip() == f"vivace {__version__}"
    assert vivace("--version", VIVACE_VERSION="1.2.3").returncode == 0
    submit = Path(PROGRAM[0]).with_name("submit-model")
    done = subprocess.run([submit, "--help"], capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0 and "Usage: submit-model" in done.stdout
    done = subprocess.run([submit, "missing.yaml"], capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 2 and done.stderr.startswith("Error: The spec 'missing.yaml'")
