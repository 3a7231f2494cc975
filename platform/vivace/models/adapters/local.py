"""`local:FOLDER` or `local:HUB-ID@REVISION`: audio models of transformers, run on this machine."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vivace.errors import UnreachableError, UsageError
from vivace.files.content_hash import folder_sha256
from vivace.files.hub import commit_of, snapshot
from vivace.models.base import AppliedMethod, ModelIdentity, ModelReply, Prompt
from vivace.models.client.calls import CallRecord, ChatOptions, record_call
from vivace.models.local.method import check_batch
from vivace_rubrics.criteria import Unscored

Result = TypeVar("Result")

LOAD_TIMEOUT_S = 1800.0
"""For reading the weights, which may come over a network drive."""
GRACE_S = 15.0
"""How long a process that is past its request's time may take to say so before it is ended."""
DYING_S = 5.0
MOST_DEATHS = 3
"""Deaths in a row, without a reply between them, after which the model is given up."""

WORKER = [sys.executable, "-P", "-m", "vivace.models.local.worker"]
"""The program that holds the model; -P keeps folders of the working directory from being taken for packages."""

FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")
"""What makes a checkpoint: settings, templates, vocabularies and weights."""
DOUBLES = ("consolidated*", "original/*")
"""The same weights once more, in a form that transformers does not read."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")

DEFAULTS: dict[str, Any] = {
    "dtype": "auto",
    "device": "auto",
    "attn_implementation": None,
    "max_new_tokens": 1024,
    "batch": 1,
    "do_sample": False,
    "temperature": None,
    "top_p": None,
    "seed": None,
}
"""What `--model-arg` may set. `auto` is the checkpoint's own dtype, and a GPU where there is one."""
SAMPLING = ("temperature", "top_p", "seed")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "dtype": (lambda v: v in ("auto", "float32", "bfloat16", "float16"), "auto, float32, bfloat16 or float16"),
    "device": (lambda v: bool(re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(v))), "auto, cpu, cuda or cuda:N"),
    "attn_implementation": (lambda v: isinstance(v, str) and bool(v), "a name, for instance sdpa or eager"),
    "max_new_tokens": (lambda v: _is_count(v) and v >= 1, "a whole number from 1"),
    "batch": (lambda v: _is_count(v) and v >= 1, "a whole number from 1"),
    "do_sample": (lambda v: isinstance(v, bool), "true or false"),
    "temperature": (lambda v: _is_number(v) and v > 0, "a number above 0"),
    "top_p": (lambda v: _is_number(v) and 0 < v <= 1, "a number above 0 and up to 1"),
    "seed": (lambda v: _is_count(v) and v >= 0, "a whole number from 0"),
}


def checked_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with their defaults.

    Raises:
        UsageError: an argument is unknown, has a value of the wrong kind, or does nothing.
    """
    for name, value in arguments.items():
        if name not in CHECKS:
            raise UsageError(f"--model-arg cannot set '{name}' of a local: model; it takes {', '.join(CHECKS)}.")
        is_valid, takes = CHECKS[name]
        if not is_valid(value):
            raise UsageError(f"--model-arg {name}={value} is not valid; it takes {takes}.")
    values = {**DEFAULTS, **arguments}
    if values["do_sample"] and values["batch"] > 1:
        raise UsageError(
            "--model-arg batch and --model-arg do_sample=true exclude each other: a sampled reply would depend on "
            "the others in its batch; leave one of them out."
        )
    if values["do_sample"]:
        values["seed"] = values["seed"] or 0
    elif useless := [name for name in SAMPLING if name in arguments]:
        raise UsageError(f"--model-arg {useless[0]} does nothing without --model-arg do_sample=true.")
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Checkpoint:
    """Where a model comes from: a folder, or a repository on the hub at a commit."""

    name: str
    folder: Path | None = None
    commit: str | None = None

    def fetched(self) -> Path:
        """The folder with its files, fetched from the hub where they are not here yet.

        Raises:
            UnreachableError: the hub does not answer.
            UsageError: it holds nothing that can be loaded.
        """
        if self.folder is not None:
            return self.folder
        assert self.commit is not None
        folder = snapshot("model", self.name, self.commit, wanted=FILES, unwanted=DOUBLES)
        check_folder(folder, self.name)
        return folder


def find_checkpoint(text: str) -> Checkpoint:
    """The checkpoint that is meant by what stands after `local:`.

    Raises:
        UsageError: there is no such folder or repository, or the folder holds no model that can be loaded.
        UnreachableError: a branch has to be looked up, and the hub does not answer.
    """
    folder = Path(text)
    if folder.exists():
        check_folder(folder, text)
        return Checkpoint(folder.absolute().name, folder=folder.absolute())
    hub = re.fullmatch(r"([\w-][\w.-]*/[\w.-]+)(?:@([\w./-]+))?", text)
    if hub is None:
        raise UsageError(
            f"There is no folder '{text}'; write local:FOLDER with a model that transformers has saved, or "
            "local:HUB-ID@REVISION."
        )
    name, revision = hub.groups()
    return Checkpoint(name, commit=commit_of("model", name, revision))


def check_folder(folder: Path, name: str) -> None:
    """See that a folder holds a checkpoint that may be read.

    Raises:
        UsageError: it lacks a configuration or weights, or its weights are pickles.
    """
    if not folder.is_dir():
        raise UsageError(f"'{name}' is not a folder; give the folder that holds config.json and the weights.")
    if not (folder / "config.json").is_file():
        raise UsageError(f"The folder '{name}' holds no config.json, so it is not a model that transformers saved.")
    if any(folder.glob("*.safetensors")):
        return
    if pickle := next((file for pattern in PICKLES for file in folder.glob(pattern)), None):
        raise UsageError(
            f"The model '{name}' keeps its weights in a pickle ({pickle.name}), which can run any code when it is "
            "read; save it again with save_pretrained, as safetensors."
        )
    raise UsageError(f"The model '{name}' holds no weights (*.safetensors).")


def checkpoint_sha256(folder: Path) -> str:
    """A hash of what makes a checkpoint: every byte of its settings, templates, vocabularies and weights."""
    return folder_sha256(folder, (*FILES, "additional_chat_templates/*.jinja"))


@dataclass(eq=False)
class _Waiting:
    """A conversation whose reply is asked for."""

    prompt: Prompt
    future: Future[tuple[ModelReply, CallRecord]] = field(default_factory=Future)
    batch: list[_Waiting] = field(default_factory=list)
    """Those that are answered with it, itself included, once their turn has come."""
    is_abandoned: bool = False
    """Whether nobody waits for the reply any more."""


class LocalModel:
    """A transformers model under test, held by a process of its own.

    So heavy work stalls no heartbeat, and a crash is a failed item. The process answers one conversation at a time,
    or with the argument `batch` up to so many of those that wait at that moment; times start when it has received
    them.

    Args:
        name: a folder, or a hub id with a revision.
        arguments: any of `DEFAULTS`; others are refused.
        options: only the timeout counts. A reply that takes longer is unscored; there are no further tries, for
            the same request would end the same way.
        method: what it decodes with; None is plainly.

    Raises:
        UsageError: there is no such model, its weights are pickles, an argument is wrong, or the batch is too large
            for the method.
        UnreachableError: the hub has to be asked and does not answer.
    """

    worker = WORKER
    """The program that holds the model."""

    def __init__(
        self, name: str, arguments: dict[str, Any], options: ChatOptions, method: AppliedMethod | None = None
    ) -> None:
        if options.api_base:
            raise UsageError("local: runs the model on this machine; leave out --api-base.")
        self._arguments = checked_arguments(arguments)
        if method is not None:
            check_batch(method, self._arguments["batch"])
        self._checkpoint = find_checkpoint(name)
        self._timeout_s = options.timeout_s
        folder, commit = self._checkpoint.folder, self._checkpoint.commit
        self._identity = ModelIdentity(
            target=f"local:{folder}" if folder else f"local:{self._checkpoint.name}@{commit}",
            adapter="local",
            name=self._checkpoint.name,
            # Which of several GPUs it is makes no difference to what it answers.
            parameters={**self._arguments, "device": self._arguments["device"].partition(":")[0]},
            content_sha256=checkpoint_sha256(folder) if folder else None,
            method=method,
        )
        self._process: _Process | None = None
        self._deaths = 0
        self._closed = False
        self._waiting: deque[_Waiting] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="local-model")

    @property
    def identity(self) -> ModelIdentity:
        """The checkpoint, dtype, kind of device, attention, how it generates, and with which method."""
        return self._identity

    async def preflight(self) -> None:
        """Fetch the model if need be, and load it."""
        missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
        if missing:
            raise UsageError(f"Local models need {' and '.join(missing)}: pip install 'vivace[local]'.")
        await self._in_thread(self._running)

    async def reply(self, prompt: Prompt) -> ModelReply:
        """Its reply. The detail says what of the recordings it could not take, and how many shared its batch."""
        waiting = _Waiting(prompt)
        self._waiting.append(waiting)
        try:
            await asyncio.sleep(0)  # those that are asked for at the same moment shall find each other waiting
            self._thread.submit(self._answer_waiting)
            reply, call = await asyncio.wrap_future(waiting.future)
        except asyncio.CancelledError:
            self._abandon(waiting)
            raise
        record_call(call)
        return reply

    async def close(self) -> None:
        """End the process."""
        self._closed = True
        self._kill_process()
        self._thread.shutdown(wait=True, cancel_futures=True)
        for waiting in self._waiting:
            waiting.future.cancel()
        if self._process is not None:
            self._process.end()
            self._process = None

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        """Do something in the one thread that speaks with the process; others wait for their turn."""
        future = self._thread.submit(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancelled():
                self._kill_process()  # it is at work on what nobody waits for any more
            raise

    def _abandon(self, waiting: _Waiting) -> None:
        """Drop a conversation; end the process if it is at work for nobody any more."""
        waiting.is_abandoned = True
        if waiting.future.cancel():  # before its turn had come
            return
        unanswered = [one for one in waiting.batch if not one.future.done()]
        if unanswered and all(one.is_abandoned for one in unanswered):
            self._kill_process()

    def _answer_waiting(self) -> None:
        """Answer as many of the waiting conversations as fit into a batch; none may be left, which is fine."""
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._arguments["batch"]:
            waiting = self._waiting.popleft()
            if waiting.future.set_running_or_notify_cancel():
                batch.append(waiting)
        for waiting in batch:
            waiting.batch = batch
        try:
            if batch:
                self._answer(batch)
        except BaseException as error:
            for waiting in batch:
                if not waiting.future.done():
                    waiting.future.set_exception(error)

    def _running(self) -> _Process:
        """The process with the model loaded; a new one if there is none.

        Raises:
            UsageError: the model cannot be loaded, or the method does not fit it.
            UnreachableError: the process died while it loaded it.
        """
        if self._process is not None:
            return self._process
        folder = self._checkpoint.fetched()
        arguments, method = self._arguments, self._identity.method
        generation = {
            name: arguments[name]
            for name in ("max_new_tokens", "do_sample", "temperature", "top_p")
            if name in arguments
        }
        process = self._process = _Process(self.worker)
        if self._closed:  # while the files were fetched; nobody waits for the model any more
            process.kill()
        answer = process.ask(
            {
                "folder": str(folder),
                "dtype": arguments["dtype"],
                "device": arguments["device"],
                "attn_implementation": arguments.get("attn_implementation"),
                "generation": generation,
                "seed": arguments.get("seed"),
                "batch": arguments["batch"],
                "method": None if method is None else {"label": method.label, "recipe": str(method.recipe)},
            },
            LOAD_TIMEOUT_S,
        )
        if answer is None or "fault" in answer or "misfit" in answer:
            self._process = None
            how = process.end()
            if answer is None:
                raise UnreachableError(f"The model '{self._checkpoint.name}' could not be loaded: {how}.")
            if "misfit" in answer:
                raise UsageError(answer["misfit"])
            raise UsageError(f"The model '{self._checkpoint.name}' cannot be used: {answer['fault']}.")
        process.description, process.hears = answer["ready"], answer["hears"]
        return process

    def _answer(self, batch: list[_Waiting], note: str | None = None) -> None:
        """Ask for the replies to a batch, and hand them to those who wait.

        Args:
            batch: one conversation or several.
            note: what to say about how the replies came to be.

        Raises:
            UsageError: the model cannot be loaded, or takes no recordings.
            UnreachableError: it died while it was loaded, or too often since.
        """
        process = self._running()
        prompts = [waiting.prompt for waiting in batch]
        if not process.hears and any(spoken.audio for prompt in prompts for spoken, _ in prompt.turns):
            raise UsageError(
                f"'{self._checkpoint.name}' is not an audio model: its processor takes only text; --audio "
                "transcript runs it as a transcript control."
            )
        started = time.perf_counter()
        answer = process.ask(_request(prompts, self._timeout_s), self._timeout_s + GRACE_S)
        seconds = time.perf_counter() - started
        if answer is None:
            died = self._died(process, len(batch))
            for waiting in batch:
                waiting.future.set_result((died, _call(seconds, {}, died)))
            return
        self._deaths = 0
        if "apart" in answer:
            self._answer_apart(batch, answer["apart"])
            return
        for waiting, one in zip(batch, answer.get("answers", [answer]), strict=True):
            reply = _reply(one, process.description, note)
            waiting.future.set_result((reply, _call(seconds, one, reply)))

    def _answer_apart(self, batch: list[_Waiting], reason: str) -> None:
        """Answer one by one what could not be answered together, for instance because the memory is too small."""
        note = f"answered alone: a batch of {len(batch)} (--model-arg batch) failed with {reason}"
        for waiting in batch:
            if not waiting.is_abandoned:
                self._answer([waiting], note)

    def _died(self, process: _Process, together: int) -> ModelReply:
        """The reply that a death or a hang leaves behind, to each conversation that was being answered.

        Raises:
            UnreachableError: it was the last of too many in a row.
        """
        self._process = None
        how = process.end()
        if together > 1:
            how = f"{how}, at work on a batch of {together} (--model-arg batch)"
        self._deaths += 1
        if self._deaths >= MOST_DEATHS:
            raise UnreachableError(
                f"The model '{self._checkpoint.name}' failed {self._deaths} times in a row ({how}); if it is just "
                "slow, give it more time with --timeout."
            )
        reason = Unscored.TIMEOUT if process.overdue else Unscored.SERVER_ERROR
        return ModelReply(None, reason, how, model_snapshot=process.description)

    def _kill_process(self) -> None:
        """From any thread; the one that speaks with the process then finds it dead."""
        process = self._process
        if process is not None:
            process.kill()


class _Process:
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


def _request(prompts: list[Prompt], timeout_s: float) -> dict[str, Any]:
    conversations = [_turns(prompt) for prompt in prompts]
    content = {"turns": conversations[0]} if len(conversations) == 1 else {"conversations": conversations}
    return {**content, "timeout_s": timeout_s}


def _turns(prompt: Prompt) -> list[dict[str, Any]]:
    return [
        {
            "audio": base64.b64encode(spoken.audio.content).decode("ascii") if spoken.audio else None,
            "text": spoken.text,
            "assistant": assistant,
        }
        for spoken, assistant in prompt.turns
    ]


def _call(seconds: float, answer: dict[str, Any], reply: ModelReply) -> CallRecord:
    return CallRecord(
        seconds=seconds,
        input_tokens=answer.get("input_tokens"),
        output_tokens=answer.get("output_tokens"),
        input_audio_tokens=answer.get("input_audio_tokens"),
        cost_usd=0.0,
        error=reply.unscored,
        detail=reply.detail,
    )


def _reply(answer: dict[str, Any], description: str | None, note: str | None = None) -> ModelReply:
    if "error" in answer:
        detail = "; ".join([answer["detail"], *([note] if note else [])])
        return ModelReply(None, Unscored(answer["error"]), detail, model_snapshot=description)
    return ModelReply(
        text=answer["text"],
        detail="; ".join([*answer["notes"], *([note] if note else [])]) or None,
        finish_reason=answer["finish_reason"],
        model_snapshot=description,
        ttft_s=answer["ttft_s"],
        total_s=answer["total_s"],
    )
