"""Writes the site: boards, judgings and conversations as pages beside each other, recordings on wish."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from vivace import __version__
from vivace.analysis.published import published_figures
from vivace.errors import UsageError, VivaceError
from vivace.files.folders import whole_or_none
from vivace.output.printable import json_text, printable
from vivace.output.secrets import masked
from vivace.output.short_names import distinct, settings_text
from vivace.publishing.charts import beside_published, pass_rates, trade_off
from vivace.store.artifacts import Artifacts
from vivace.store.database import Database
from vivace.store.queries.board import BoardRow, board
from vivace.store.queries.conversation import conversation, conversations
from vivace.store.queries.efficiency import ArmRow, arm_board
from vivace.store.queries.foreign import ForeignRow, foreign_board

MARK = "vivace-site.json"
"""By which a folder is known as a site, that another may take the place of."""
SUFFIXES = {
    b"RIFF": ".wav",
    b"OggS": ".ogg",
    b"fLaC": ".flac",
    b"ID3": ".mp3",
    b"\xff\xfb": ".mp3",
    b"\x1aE\xdf": ".webm",
}
"""How a recording begins → how its file ends, by which browsers without a server tell its kind."""
Columns = Mapping[str, Callable[[dict[str, Any]], str]]
"""Heading → a row's text under it."""


@dataclass(frozen=True)
class Look:
    """How boards are written for people, which the command line knows.

    Attributes:
        board: the columns of the dialogue board for its rows.
        group: what rows share that are ranked together.
        arms: the columns of the efficiency boards.
        arm_group: what arms share that are held against each other.
        published: the columns of figures that others published.
        foreign: the columns of what other tools measured.
        foreign_group: what results share that measured the same thing.
    """

    board: Callable[[Sequence[dict[str, Any]]], Columns]
    group: Callable[[dict[str, Any]], str]
    arms: Callable[[Sequence[dict[str, Any]]], Columns]
    arm_group: Callable[[dict[str, Any]], str]
    published: Columns
    foreign: Columns
    foreign_group: Callable[[dict[str, Any]], str]


@dataclass
class _Site:
    """A site while it is written."""

    folder: Path
    database: Database
    artifacts: Artifacts | None
    look: Look
    title: str
    pages: Environment = field(init=False)
    written: int = 0

    def __post_init__(self) -> None:
        self.pages = Environment(
            loader=PackageLoader("vivace.publishing"), autoescape=select_autoescape(default=True),
            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        # Texts of models, judges and cards are shown as texts: no key, no control character, and no markup of theirs.
        self.pages.filters["shown"] = lambda value: printable(masked(str(value)))

    def page(self, path: str, template: str, **content: Any) -> None:
        """Write one page."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        text = self.pages.get_template(template).render(
            up="../" * path.count("/"), site=self.title, version=__version__,
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), **content,
        )  # fmt: skip
        file.write_text(text, encoding="utf-8")
        self.written += 1

    def recording(self, sha256: str | None) -> str | None:
        """A recording's path below the site, put there; None where it is not wanted or not here."""
        if self.artifacts is None or sha256 is None or not self.artifacts.has(sha256):
            return None
        content = self.artifacts.get(sha256)
        suffix = next((suffix for start, suffix in SUFFIXES.items() if content.startswith(start)), ".wav")
        path = self.folder / "audio" / f"{sha256}{suffix}"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        return path.relative_to(self.folder).as_posix()


def publish(
    database: Database,
    folder: Path,
    look: Look,
    *,
    title: str,
    artifacts: Artifacts | None = None,
    with_conversations: bool = True,
    space: bool = False,
) -> int:
    """Write the site into a folder, which takes the place of an earlier site there, whole or not at all.

    Args:
        database: whose boards it shows; what was retracted is left out.
        folder: new, empty, or holding a site.
        look: of the tables.
        title: of the site.
        artifacts: recordings to put beside the pages; None for none.
        with_conversations: whether what was said and replied is shown, or scores alone.
        space: whether it is to be a Space of the Hugging Face hub.

    Returns:
        The number of pages.

    Raises:
        UsageError: the folder holds something else.
        VivaceError: it cannot be written.
    """
    if folder.exists() and not (folder.is_dir() and ((folder / MARK).is_file() or not any(folder.iterdir()))):
        raise UsageError(f"'{folder}' holds something that is no site of Vivace's; name another folder.")
    try:
        beside = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(beside, ignore_errors=True)
        with whole_or_none(beside) as unfinished:
            site = _Site(unfinished, database, artifacts, look, title)
            _write(site, with_conversations)
            (unfinished / MARK).write_text(json.dumps({"vivace": __version__}), encoding="utf-8")
            if space:
                (unfinished / "README.md").write_text(_card(title), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        beside.rename(folder)
    except OSError as error:
        raise VivaceError(f"'{folder}' cannot be written ({error.strerror}).") from error
    return site.written


def _write(site: _Site, with_conversations: bool) -> None:
    rows, arms, foreign = board(site.database), arm_board(site.database), foreign_board(site.database)
    site.pages.globals["has_foreign"] = bool(foreign)
    places = {row.judging: f"judgings/{_slug(row.judging)}.html" for row in rows}
    site.page("index.html", "board.html", groups=_board_groups(site, rows, places), here="board",
              published=_published(site, rows))  # fmt: skip
    site.page("inference.html", "arms.html", groups=_arm_groups(site, arms), here="arms")
    if foreign:
        site.page("other-tools.html", "foreign.html", groups=_foreign_groups(site, foreign), here="foreign")
    for row in rows:
        _write_judging(site, row, places[row.judging], with_conversations)


def _board_groups(site: _Site, rows: Sequence[BoardRow], places: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows that are ranked together, each cell as text, with a plot of them."""
    found = []
    for name, group in _grouped(rows, site.look.group).items():
        cells = [row.as_json() for row in group]
        columns = _used(site.look.board(cells), cells)
        names = distinct(
            [row.model for row in group],
            ([settings_text(row.apart) for row in group], [row.short_run for row in group]),
        )
        found.append(
            {
                "name": name,
                "headings": list(columns),
                "rows": [
                    {"cells": [text(cell) for text in columns.values()], "link": places[row.judging],
                     "apart": row.standing != "ranked"}
                    for row, cell in zip(group, cells, strict=True)
                ],
                "plot": _markup(pass_rates(group, names)),
            }
        )  # fmt: skip
    return found


def _published(site: _Site, rows: Sequence[BoardRow]) -> dict[str, Any] | None:
    """What others published on the tracks of the board, in one picture with what was run here and is ranked."""
    own = [row for row in rows if row.standing == "ranked"]
    figures = [figure for track in dict.fromkeys(row.track for row in rows) for figure in published_figures(track)]
    if not figures:
        return None
    names = distinct(
        [f"{row.model}, {row.data}" for row in own],
        ([row.judge for row in own], [settings_text(row.apart) for row in own], [row.judging for row in own]),
    )  # fmt: skip
    cells = [figure.as_json() for figure in figures]
    columns = _used(site.look.published, cells)
    return {
        "name": "Published by others, not run here",
        "headings": list(columns),
        "rows": [{"cells": [text(cell) for text in columns.values()], "apart": False} for cell in cells],
        "plot": _markup(beside_published(own, names, figures)),
    }


def _foreign_groups(site: _Site, rows: Sequence[ForeignRow]) -> list[dict[str, Any]]:
    found = []
    for name, group in _grouped(rows, site.look.foreign_group).items():
        cells = [row.as_json() for row in group]
        columns = _used(site.look.foreign, cells)
        shown = [{"cells": [text(cell) for text in columns.values()], "apart": False} for cell in cells]
        found.append({"name": name, "headings": list(columns), "rows": shown, "plot": None})
    return found


def _arm_groups(site: _Site, arms: Sequence[ArmRow]) -> list[dict[str, Any]]:
    found = []
    for name, group in _grouped(arms, site.look.arm_group).items():
        cells = [row.as_json() for row in group]
        columns = _used(site.look.arms(cells), cells)
        found.append(
            {
                "name": name,
                "headings": list(columns),
                "rows": [
                    {"cells": [text(cell) for text in columns.values()], "apart": row.standing != "ranked"}
                    for row, cell in zip(group, cells, strict=True)
                ],
                "plot": _markup(trade_off(group)),
            }
        )
    return found


def _grouped(rows: Sequence[Any], name: Callable[[dict[str, Any]], str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(name(row.as_json()), []).append(row)
    return found


def _used(columns: Columns, rows: Sequence[dict[str, Any]]) -> dict[str, Callable[[dict[str, Any]], str]]:
    """The columns in which something stands."""
    return {heading: text for heading, text in columns.items() if any(text(row) not in ("", "–") for row in rows)}


def _markup(drawing: str | None) -> Markup | None:
    """A drawing of our own, in which every text was escaped when it was drawn."""
    return None if drawing is None else Markup(drawing)


def _write_judging(site: _Site, row: BoardRow, place: str, with_conversations: bool) -> None:
    found = conversations(site.database, row.judging)
    folder = place.removesuffix(".html")
    pages = {one.id: f"{folder}/{number:04d}.html" for number, one in enumerate(found, start=1)}
    facts = {
        "Judge": f"{row.judge}, fingerprint {row.judge_fingerprint[:12]}",
        "Data": f"{row.data}, revision {row.data_revision[:12]}",
        "Asked with": f"{row.input_form} in, {row.output_form} out",
        "Parameters": settings_text({key: json_text(value) for key, value in row.parameters.items()}) or "defaults",
        "Method": row.method or "none",
        "Organisation": row.organisation or "not told",
        "Description": row.description or "none",
        "Run": row.run,
    }
    site.page(
        place, "judging.html", row=row, facts=facts, here="board",
        conversations=[{"one": one, "link": pages[one.id] if with_conversations else None} for one in found],
    )  # fmt: skip
    if not with_conversations:
        return
    order = list(pages)
    for number, id in enumerate(order):
        for repeat in range(row.repeats):
            view = conversation(site.database, row.judging, id, repeat)
            assert view is not None  # it was planned
            beside = [order[place] if 0 <= place < len(order) else None for place in (number - 1, number + 1)]
            recordings = {turn.audio_sha256: site.recording(turn.audio_sha256) for turn in view.turns}
            site.page(
                _with_repeat(pages[id], repeat), "conversation.html", view=view, row=row, back=place, here="board",
                recordings=recordings, reply_recording=site.recording(view.reply_audio_sha256), repeat=repeat,
                before=pages.get(beside[0] or ""), after=pages.get(beside[1] or ""),
                repeats=[_with_repeat(pages[id], each) for each in range(row.repeats)],
            )  # fmt: skip


def _with_repeat(page: str, repeat: int) -> str:
    return page if not repeat else page.replace(".html", f"-{repeat + 1}.html")


def _slug(name: str) -> str:
    """An id as the name of a file."""
    return re.sub(r"[^\w.-]", "_", name)


def _card(title: str) -> str:
    """What the hub reads of a Space: a static one, whose first page is ours."""
    told = {"title": title, "sdk": "static", "app_file": "index.html", "pinned": False}
    return f"---\n{yaml.safe_dump(told, sort_keys=False, allow_unicode=True)}---\n\nMade with Vivace.\n"
