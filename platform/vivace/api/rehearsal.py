"""Whether the sets that are open can be submitted to from here: found out before the first stranger does."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

from vivace.api.door import Door
from vivace.errors import UsageError
from vivace.settings import Settings
from vivace.tracks.dialogue.data.readers import open_conversations
from vivace.tracks.registry import find_track


def rehearse(door: Door, settings: Settings) -> None:
    """Prepare a run of one reply on each set, as a submission does: its data, judge and transcriber have to be there.

    Raises:
        UsageError: something of a set is wrong or missing; the message names the set.
        UnreachableError: the hub has to be asked for something and does not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        replies = Path(folder) / "replies.jsonl"
        for name in sorted(door.sets):
            try:
                spec = door.spec_of(name, {"model": f"replay:{replies}"})
                first = open_conversations(spec.data).chosen(spec.items, spec.limit)[0]
                replies.write_text(json.dumps({"id": first.id, "response": "A reply."}))
                asyncio.run(find_track(spec.track).prepare(spec, settings.home).close())
            except UsageError as error:
                raise UsageError(f"The set '{name}' cannot be submitted to here. {error}") from error
