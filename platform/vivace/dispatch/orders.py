"""What is to be started: how many workers, of which queues, with what of this environment; read from a YAML file."""

from __future__ import annotations

import os
import shlex
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vivace.errors import UsageError
from vivace.output.secrets import note_password
from vivace.settings import Settings
from vivace.spec import read_spec_file
from vivace.store.database import Database

VARIABLE = "^[A-Za-z_][A-Za-z0-9_]*$"
"""What a variable is called; its value is never written into a file."""


class Strict(BaseModel):
    """Options of which none is unknown; `a-b` and `a_b` are the same."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=lambda name: name.replace("_", "-"), populate_by_name=True
    )


class Order(Strict):
    """What every place is asked for.

    Attributes:
        workers: how many.
        queues: that each of them serves.
        offer: words that runs may need of their machine.
        lease: seconds without a sign of life after which others take a run over.
        until_empty: whether they end when nothing is left to do.
        variables: names of further environment variables that they get, as keys of providers.
        program: what is called there, before the verb.
    """

    workers: int = Field(default=1, ge=1, le=1000)
    queues: list[str] = Field(default=["default"], min_length=1)
    offer: list[str] = []
    lease: float | None = Field(default=None, ge=1)
    until_empty: bool = True
    variables: list[Annotated[str, Field(pattern=VARIABLE)]] = []
    program: list[str] = Field(default=["vivace"], min_length=1)

    @property
    def command(self) -> list[str]:
        """The command line of each worker; it holds no secret, nor the database's address."""
        words = [*self.program, "worker"]
        words += [f"--queue={queue}" for queue in self.queues] + [f"--offer={word}" for word in self.offer]
        words += [f"--lease={self.lease:g}"] if self.lease is not None else []
        return words + (["--until-empty"] if self.until_empty else [])


@dataclass(frozen=True)
class Environment:
    """What workers get through their environment; its values are shown nowhere.

    Attributes:
        values: name → value.
    """

    values: Mapping[str, str]

    @classmethod
    def of(cls, order: Order, settings: Settings) -> Self:
        """Database and artifacts as they are here, and the variables that are named.

        Raises:
            UsageError: one that is named is not set.
        """
        values = {"VIVACE_DATABASE": settings.database_url}
        if settings.artifacts is not None:
            values["VIVACE_ARTIFACTS"] = str(settings.artifacts)
        for name in order.variables:
            value = os.environ.get(name)
            if not value:
                raise UsageError(
                    f"The variable {name} is to be handed to workers and is not set; set it, or leave it out."
                )
            note_password(value, None, None, None)
            values[name] = value
        return cls(values)


@dataclass(frozen=True)
class Started:
    """A worker that was started."""

    id: str
    """By which the place knows it."""
    where: str
    """A log, or an address where it can be looked at."""


class Target(Protocol):
    """A place where workers can be started.

    Attributes:
        options: its own section of the file.
        is_elsewhere: whether its machines have no file in common with this one.
    """

    options: type[Strict]
    is_elsewhere: bool

    def start(self, order: Order, options: Any, environment: Environment, settings: Settings) -> list[Started]:
        """Start the workers.

        Raises:
            UsageError: the options are wrong for this place.
            VivaceError: it does not start them.
        """
        ...


def read_order(
    file: Path, name: str, target: Target, workers: int | None, places: Container[str]
) -> tuple[Order, Strict]:
    """What a file asks for, with the section of one place; sections of other places are left alone.

    Args:
        file: YAML.
        name: of the place.
        target: the place.
        workers: how many, where it is not what the file says.
        places: the names of all places.

    Raises:
        UsageError: the file cannot be read, or something in it is unknown or wrong.
    """
    values = {str(key).replace("_", "-"): value for key, value in read_spec_file(file).items()}
    sections = {key: values.pop(key) or {} for key in list(values) if key in places}
    if workers is not None:
        values["workers"] = workers
    return _checked(Order, values, str(file)), _checked(target.options, sections.get(name, {}), f"'{name}' in {file}")


def _checked(form: type[Any], values: Any, where: str) -> Any:
    try:
        return form.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        at = ".".join(map(str, fault["loc"])) or "it"
        known = ", ".join(name.replace("_", "-") for name in form.model_fields)
        raise UsageError(f"{where}: '{at}' is wrong ({fault['msg']}); it takes {known}.") from error


def check_reach(target: Target, settings: Settings) -> None:
    """See that workers elsewhere can reach what they work on.

    Raises:
        UsageError: the database is a file of this machine.
    """
    if target.is_elsewhere and Database(settings.database_url).is_sqlite:
        raise UsageError(
            "Workers on other machines cannot share a SQLite file; give a PostgreSQL URL with --database, and an "
            "artifact store with --artifacts."
        )


def shown(order: Order, options: Strict, environment: Environment) -> dict[str, Any]:
    """What would be started, without the values of variables."""
    return {
        "workers": order.workers,
        "command": shlex.join(order.command),
        "variables": sorted(environment.values),
        "options": options.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
