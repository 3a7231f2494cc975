"""The tables of `prefill_quality.py` as Markdown, for people and for the page of docs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

USUAL = ("oracle", "claa", "fastkv", "uniform", "recency", "random")


def markdown(details: Mapping[str, Any], window: int) -> str:
    """All tables, each under its heading.

    Args:
        details: the manifest of a result.
        window: the usual one.
    """
    parts = []
    for length in sorted({line["length"] for line in details["table"]}):
        lines = [line for line in details["table"] if line["length"] == length]
        prompts = max(line["nats"]["n"] for line in lines)
        parts.append(f"### {length:,} tokens, {prompts} prompts\n\n{_by_keep(lines, window)}")
        if len({line["window"] for line in lines}) > 1:
            parts.append(f"Windows (nats, evidence kept):\n\n{_by_window(lines)}")
        if any(line["arm"].startswith("claa ") for line in lines):
            parts.append(f"Variants of CLAA (nats, evidence kept):\n\n{_variants(lines)}")
    if details["layers"]:
        parts.append(f"### Evidence kept, layer by layer\n\n{_layers(details['layers'], window)}")
    if details["whole"]:
        parts.append(f"### Whole methods\n\n{_whole(details['whole'])}")
    if details["zoo"]:
        parts.append(f"### The zoo's retrieval model\n\n{_zoo(details['zoo'])}")
    if details["kvpress"]:
        parts.append(f"### Beside kvpress\n\n{_kvpress(details['kvpress'])}")
    return "\n\n".join([*parts, *details["remarks"]]) + "\n"


def _by_keep(lines: Sequence[Mapping[str, Any]], window: int) -> str:
    """Right answers, nats and evidence by layer and arm, a column for each share."""
    keeps = sorted({line["keep"] for line in lines})
    found = {(line["layer"], line["arm"], line["keep"]): line for line in lines if line["window"] == window}
    rows = []
    for layer in sorted({line["layer"] for line in lines}):
        for arm in USUAL:
            cells = [found.get((layer, arm, keep)) for keep in keeps]
            if any(cells):
                rows.append([str(layer), arm, *(_answers(cell) for cell in cells)])
    return _table(["behind", "ranking", *(f"keep {keep:.0%}" for keep in keeps)], rows)


def _answers(line: Mapping[str, Any] | None) -> str:
    if line is None:
        return "–"
    exact, nats, kept = (line[name] for name in ("exact, needles", "nats", "evidence kept"))
    right = "" if exact is None else f"{exact['value'] * exact['n']:.0f} of {exact['n']}, "
    return f"{right}{_interval(nats)}" + ("" if kept is None else f", {kept['value']:.2f}")


def _by_window(lines: Sequence[Mapping[str, Any]]) -> str:
    windows = sorted({line["window"] for line in lines})
    found = {(line["layer"], line["arm"], line["keep"], line["window"]): line for line in lines}
    rows = [
        [str(layer), arm, f"{keep:.0%}", *(_short(found.get((layer, arm, keep, window))) for window in windows)]
        for layer, arm, keep in sorted({(line["layer"], line["arm"], line["keep"]) for line in lines})
        if arm in ("claa", "fastkv") and (layer, arm, keep, windows[-1]) in found
    ]
    return _table(["behind", "ranking", "keep", *(f"window {window}" for window in windows)], rows)


def _variants(lines: Sequence[Mapping[str, Any]]) -> str:
    found = {(line["arm"], line["layer"], line["keep"]): line for line in lines if line["arm"].startswith("claa ")}
    places = sorted({(layer, keep) for _, layer, keep in found})
    names = dict.fromkeys(name for name, _, _ in found)
    rows = [[name, *(_short(found.get((name, *place))) for place in places)] for name in names]
    return _table(["variant", *(f"behind {layer}, keep {keep:.0%}" for layer, keep in places)], rows)


def _short(line: Mapping[str, Any] | None) -> str:
    if line is None:
        return "–"
    kept = line["evidence kept"]
    return f"{line['nats']['value']:.2f}" + ("" if kept is None else f", {kept['value']:.2f}")


def _layers(found: Sequence[Mapping[str, Any]], window: int) -> str:
    lines = [line for line in found if line["window"] == window]
    layers = range(len(lines[0]["evidence kept"]))
    rows = [
        [
            f"{line['length']:,}",
            line["ranking"],
            f"{line['keep']:.0%}",
            *(f"{it:.2f}" for it in line["evidence kept"]),
        ]
        for line in lines
    ]
    return _table(["tokens", "ranking", "keep", *map(str, layers)], rows)


def _whole(lines: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            line["arm"], _interval(line["nats"]), _share(line["same answer"]), _share(line["KV share"]),
            ", ".join(f"{ratio:.2f}" for ratio in line["TTFT / full"]),
        ]
        for line in lines
    ]  # fmt: skip
    return _table(["method", "nats", "same answer", "of a full cache", "TTFT / full"], rows)


def _zoo(lines: Sequence[Mapping[str, Any]]) -> str:
    rows = [[line["arm"], _share(line["right"]), _share(line["FLOPs of reading / full"])] for line in lines]
    return _table(["method", "right", "FLOPs of reading / full"], rows)


def _kvpress(lines: Sequence[Mapping[str, Any]]) -> str:
    return _table(["arm and share taken away", "nats"], [[line["arm"], _interval(line["nats"])] for line in lines])


def _interval(found: Mapping[str, float]) -> str:
    return f"{found['value']:.2f} [{found['low']:.2f}–{found['high']:.2f}]"


def _share(found: Mapping[str, float] | None) -> str:
    return "–" if found is None else f"{found['value']:.0%}"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', ', ') for cell in line)} |" for line in lines)
