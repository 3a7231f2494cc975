"""What an adapter says before a system is opened, and what it is opened with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from vivace.models.base import UNSPOKEN, AppliedMethod, SpokenOutput, SystemUnderTest
from vivace.models.client.calls import ChatOptions


@dataclass(frozen=True)
class Capabilities:
    """What is known of an adapter's systems before one is opened.

    Attributes:
        speaks: whether they answer with speech: never, where they are asked to, or unless they are asked not to.
        is_free: whether their calls cost nobody anything.
        takes_method: whether they decode with an inference method.
        may_be_path: whether what stands behind the colon may be a file or folder, which is then found from anywhere.
        is_recorded: whether they hold replies that were made elsewhere, and ask nobody.
        asks_another: whether what stands behind the colon is another target, whose model is asked for the replies.
        provider: whose prices and rates theirs are; empty where the name says it, `PROVIDER/NAME`.
    """

    speaks: Literal["never", "asked", "always"] = "never"
    is_free: bool = False
    takes_method: bool = False
    may_be_path: bool = False
    is_recorded: bool = False
    asks_another: bool = False
    provider: str = ""


@dataclass(frozen=True)
class Asked:
    """What a system under test is opened with.

    Attributes:
        name: what stands behind the adapter's colon.
        arguments: generation parameters.
        options: how calls are made.
        spoken: what it is to answer with.
        hears: whether it will be sent recordings, not transcripts.
        method: what it decodes with; only for adapters that take one.
        ear: what writes down the recordings; only for adapters that ask another model for the replies.
        another: that model.
        home: the folder that packaged models lie in; None for the one that the settings name.
    """

    name: str
    arguments: dict[str, Any]
    options: ChatOptions
    spoken: SpokenOutput = UNSPOKEN
    hears: bool = True
    method: AppliedMethod | None = None
    ear: str | None = None
    another: SystemUnderTest | None = None
    home: Path | None = None


class Adapter(Protocol):
    """A class of systems under test: how a target, `adapter:name`, becomes one."""

    @property
    def capabilities(self) -> Capabilities:
        """What its systems can."""
        ...

    def open(self, asked: Asked) -> SystemUnderTest:
        """The system that a target names; nothing is asked of it yet.

        Raises:
            UsageError: it cannot be what was asked for.
        """
        ...
