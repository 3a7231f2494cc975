"""The program of a process that holds a model: it reads requests, answers them, and ends with whoever started it.

The two speak in JSON, one object a line. The first line that is read says what to load; the answer is `ready`, a
`fault`, or a `misfit` of the method that the model is to decode with. Every further line is a conversation, and gets
a reply or an `error`; or it is several `conversations`, and gets their `answers`, or in `apart` the reason why to ask
them one by one.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from vivace.models.local.failures import MisfitError, RefusedError, failure, short


class Answerer(Protocol):
    """A model, loaded, that answers requests."""

    @property
    def description(self) -> str:
        """What runs, and on what."""
        ...

    @property
    def hears(self) -> bool:
        """Whether it takes recordings."""
        ...

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request, `text`, or an `error` with its `detail`."""
        ...


def _serve(requests: queue.Queue[str], channel: TextIO, load: Callable[[dict[str, Any]], Answerer]) -> None:
    """Load what the first line asks for, then answer every further line."""
    setup = json.loads(requests.get())
    try:
        model = load(setup)
    except MisfitError as error:
        _send(channel, {"misfit": str(error)})
        return
    except Exception as error:
        _send(channel, {"fault": str(error) if isinstance(error, RefusedError) else short(error)})
        return
    _send(channel, {"ready": model.description, "hears": model.hears})
    while True:
        request = json.loads(requests.get())
        _send(channel, _answer_or_error(model, request))


def _answer_or_error(model: Answerer, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to one request, or why there is none.

    Raises:
        RuntimeError: the GPU has failed; only another process can go on.
    """
    try:
        return model.answer(request)
    except Exception as error:
        reason = failure(error)
    # Outside the handler: the error held on to the tensors that filled the memory.
    _free_memory()
    return {"apart": reason} if "conversations" in request else {"error": "bad_request", "detail": reason}


def _free_memory() -> None:
    import gc

    gc.collect()
    torch = sys.modules.get("torch")  # not every model is held by it
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _send(channel: TextIO, message: dict[str, Any]) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


def _read_requests(requests: queue.Queue[str]) -> None:
    """Pass on what arrives; when the other side is gone, end, whatever the model is doing."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def serve(load: Callable[[dict[str, Any]], Answerer]) -> None:
    """Serve until the process that started this one closes its end or is gone.

    Args:
        load: makes the model that answers from the first message.
    """
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not get between the messages
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    try:
        _serve(requests, channel, load)
    except Exception:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)  # an ordinary end would wait for the thread that reads
