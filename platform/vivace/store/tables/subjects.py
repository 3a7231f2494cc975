"""The tables of what is measured and with what: models, data sets, judges and machines, each by fingerprint."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import String, false
from sqlalchemy.orm import Mapped, mapped_column

from vivace.store.columns import Name, Words
from vivace.store.tables.base import Base


class Model(Base):
    """A system under test: what it is called, how it is asked, and its card."""

    __tablename__ = "model"

    id: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of adapter, name, address, generation parameters and, for recorded replies, their bytes."""
    target: Mapped[str] = mapped_column(Name)
    adapter: Mapped[str]
    name: Mapped[str] = mapped_column(Name)
    """As the board shows it."""
    address: Mapped[str | None] = mapped_column(Name)
    parameters: Mapped[dict[str, Any]]
    organisation: Mapped[str | None] = mapped_column(Name)
    size: Mapped[str | None] = mapped_column(Name)
    open_weights: Mapped[bool | None]
    licence: Mapped[str | None] = mapped_column(Name)
    description: Mapped[str | None] = mapped_column(Words)
    recorded: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether its replies were made elsewhere, so that their times are what whoever submitted them wrote."""

    @property
    def is_cascade(self) -> bool:
        """Whether it is of two stages: an ear that writes down what it hears, and a model that answers that."""
        return "ear" in self.parameters


class Dataset(Base):
    """A set of conversations at one revision."""

    __tablename__ = "dataset"

    id: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(Name)
    revision: Mapped[str]
    """A hub commit, or the SHA-256 of the local file."""
    has_audio: Mapped[bool]
    conversations: Mapped[int | None]
    """How many make it whole, stored here or not; null of tasks, and where it has not been kept so far."""
    hidden_since: Mapped[datetime | None]
    """When its items were hidden from all but the operator; null of a set whose items may be shown."""


class Judge(Base):
    """A judge as an instrument; two scores compare only where the fingerprint is the same."""

    __tablename__ = "judge"

    id: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64), unique=True)
    target: Mapped[str] = mapped_column(Name)
    name: Mapped[str] = mapped_column(Name)
    address: Mapped[str | None] = mapped_column(Name)
    prompt_name: Mapped[str | None] = mapped_column(Name)
    prompt_sha256: Mapped[str | None] = mapped_column(String(64))
    prompt: Mapped[str | None] = mapped_column(Words)
    parameters: Mapped[dict[str, Any]]
    parser_version: Mapped[str]


class Hardware(Base):
    """A machine that runs were executed on."""

    __tablename__ = "hardware"

    id: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64), unique=True)
    details: Mapped[dict[str, Any]]
