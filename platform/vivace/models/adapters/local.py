"""`local:FOLDER`, `local:HUB-ID@REVISION`, `local:FILE.gguf`, `packaged:NAME`: models of transformers, run on this
machine."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from vivace.errors import UnreachableError, UsageError
from vivace.models.adapters.base import Asked, Capabilities
from vivace.models.base import AppliedMethod, ModelIdentity, ModelReply, Prompt
from vivace.models.client.calls import CallRecord, ChatOptions, record_call
from vivace.models.local.arguments import checked_arguments
from vivace.models.local.checkpoints import Checkpoint, find_checkpoint, packaged_checkpoint
from vivace.models.local.method import check_batch
from vivace.models.local.process import ModelProcess
from vivace.settings import load_settings
from vivace_rubrics.criteria import Unscored

Result = TypeVar("Result")
LOAD_TIMEOUT_S = 1800.0
"""For reading the weights, which may come over a network drive."""
GRACE_S = 15.0
"""How long a process that is past its request's time may take to say so before it is ended."""
MOST_DEATHS = 3
"""Deaths in a row, without a reply between them, after which the model is given up."""
WORKER = [sys.executable, "-P", "-m", "vivace.models.local.worker"]
"""The program that holds the model; -P keeps folders of the working directory from being taken for packages."""


@dataclass(eq=False)
class _Waiting:
    """A conversation whose reply is asked for."""

    prompt: Prompt
    future: Future[tuple[ModelReply, CallRecord]] = field(default_factory=Future)
    batch: list[_Waiting] = field(default_factory=list)
    """Those that are answered with it, itself included, once their turn has come."""
    is_abandoned: bool = False
    """Whether nobody waits for the reply any more."""


class HeldModel:
    """A model on this machine, held by a process of its own.

    So heavy work stalls no heartbeat, and a crash is a failed item. The process answers one conversation at a time,
    or up to `batch` of those that wait at that moment; times start when it has received them.
    """

    worker: ClassVar = WORKER
    """The program that holds the model."""
    needs: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    """The packages without which it cannot be loaded."""
    extra: ClassVar = "local"
    """Of Vivace's own, the one that brings them."""

    def __init__(
        self,
        identity: ModelIdentity,
        fetched: Callable[[], Path],
        setup: dict[str, Any],
        *,
        timeout_s: float,
        batch: int = 1,
    ) -> None:
        """Make ready; no process is started yet.

        Args:
            identity: what it is.
            fetched: gives the folder with its files, after fetching them where they are not here yet.
            setup: what the process is told when it loads the model, beside the folder.
            timeout_s: for one reply. One that takes longer is unscored; there are no further tries, for the same
                request would end the same way.
            batch: how many conversations are answered at once.
        """
        self._identity = identity
        self._fetched = fetched
        self._setup = setup
        self._timeout_s = timeout_s
        self._batch = batch
        self._process: ModelProcess | None = None
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
        missing = [name.replace("_", "-") for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            raise UsageError(f"Local models need {' and '.join(missing)}: pip install 'vivace[{self.extra}]'.")
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
        while self._waiting and len(batch) < self._batch:
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

    def _running(self) -> ModelProcess:
        """The process with the model loaded; a new one if there is none.

        Raises:
            UsageError: the model cannot be loaded, or the method does not fit it.
            UnreachableError: the process died while it loaded it.
        """
        if self._process is not None:
            return self._process
        folder = self._fetched()
        process = self._process = ModelProcess(self.worker)
        if self._closed:  # while the files were fetched; nobody waits for the model any more
            process.kill()
        answer = process.ask({"folder": str(folder), **self._setup}, LOAD_TIMEOUT_S)
        if answer is None or "fault" in answer or "misfit" in answer:
            self._process = None
            how = process.end()
            if answer is None:
                raise UnreachableError(f"The model '{self._identity.name}' could not be loaded: {how}.")
            if "misfit" in answer:
                raise UsageError(answer["misfit"])
            raise UsageError(f"The model '{self._identity.name}' cannot be used: {answer['fault']}.")
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
                f"'{self._identity.name}' is not an audio model: its processor takes only text; --audio "
                "transcript runs it as a transcript control, and cascade: before its target gives it an --ear."
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

    def _died(self, process: ModelProcess, together: int) -> ModelReply:
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
                f"The model '{self._identity.name}' failed {self._deaths} times in a row ({how}); if it is just "
                "slow, give it more time with --timeout."
            )
        reason = Unscored.TIMEOUT if process.overdue else Unscored.SERVER_ERROR
        return ModelReply(None, reason, how, model_snapshot=process.description)

    def _kill_process(self) -> None:
        """From any thread; the one that speaks with the process then finds it dead."""
        process = self._process
        if process is not None:
            process.kill()


class LocalModel(HeldModel):
    """A transformers model under test.

    Args:
        name: a folder, a hub id with a revision, or a GGUF file.
        arguments: any of `DEFAULTS`; others are refused.
        options: only the timeout counts.
        method: what it decodes with; None is plainly.
        home: the folder under which GGUF files are turned into checkpoints; None for the one that the settings name.

    Raises:
        UsageError: there is no such model, its weights are pickles, an argument is wrong, or the batch is too large
            for the method.
        UnreachableError: the hub has to be asked and does not answer.
    """

    capabilities: ClassVar = Capabilities(is_free=True, takes_method=True, may_be_path=True)
    kind: ClassVar = "local"
    """What stands before the colon."""

    @classmethod
    def open(cls, asked: Asked) -> LocalModel:
        """A model on this machine.

        Raises:
            UsageError: there is none, or an argument cannot be used.
        """
        return cls(asked.name, asked.arguments, asked.options, asked.method, asked.home)

    @staticmethod
    def find(name: str, home: Path) -> Checkpoint:
        """The checkpoint that is meant by what stands behind the colon."""
        return find_checkpoint(name, home)

    def __init__(
        self,
        name: str,
        arguments: dict[str, Any],
        options: ChatOptions,
        method: AppliedMethod | None = None,
        home: Path | None = None,
    ) -> None:
        if options.api_base:
            raise UsageError(f"{self.kind}: runs the model on this machine; leave out --api-base.")
        arguments = checked_arguments(arguments)
        if method is not None:
            check_batch(method, arguments["batch"])
        settings = load_settings()
        checkpoint = self.find(name, home or settings.home)
        if f"{checkpoint.name}@{checkpoint.commit}" in settings.trusted_models:
            checkpoint = replace(checkpoint, brings_code=True)
        identity = ModelIdentity(
            target=f"{self.kind}:{_place(checkpoint)}",
            adapter=self.kind,
            name=checkpoint.name,
            # Which of several GPUs it is makes no difference to what it answers.
            parameters={
                **arguments,
                "device": arguments["device"].partition(":")[0],
                **({"trust_remote_code": True} if checkpoint.brings_code else {}),
            },
            content_sha256=checkpoint.content,
            method=method,
        )
        generation = ("max_new_tokens", "do_sample", "temperature", "top_p")
        setup = {
            "dtype": arguments["dtype"],
            "device": arguments["device"],
            "attn_implementation": arguments.get("attn_implementation"),
            "generation": {name: arguments[name] for name in generation if name in arguments},
            "seed": arguments.get("seed"),
            "batch": arguments["batch"],
            "trusted": checkpoint.brings_code,
            "method": None
            if method is None
            else {"label": method.label, "recipe": method.recipe and str(method.recipe)},
        }
        super().__init__(identity, checkpoint.fetched, setup, timeout_s=options.timeout_s, batch=arguments["batch"])


class PackagedLanguageModel(LocalModel):
    """A language model that packages carry: it reads and writes, so that it answers transcripts, or for a cascade."""

    capabilities: ClassVar = Capabilities(is_free=True, takes_method=True)
    kind: ClassVar = "packaged"

    @staticmethod
    def find(name: str, home: Path) -> Checkpoint:
        """The checkpoint that is meant by what stands behind the colon."""
        return packaged_checkpoint(name, home)


def _place(checkpoint: Checkpoint) -> str:
    """Where a checkpoint comes from, as it is written behind the colon."""
    if checkpoint.commit is not None:
        return f"{checkpoint.name}@{checkpoint.commit}"
    return str(checkpoint.folder if checkpoint.gguf is None else checkpoint.gguf.path)


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
        kept_share=answer.get("kept_share"),
    )
