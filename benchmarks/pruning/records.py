"""What `prefill_quality.py` has found so far, a line for each prompt as it ends, and the figures made of that."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pruning.arms import Label

DRAWS = 2000


class Records:
    """Results by their keys, kept in a file to which a line is added for each.

    Args:
        file: of JSON lines; made where it is not there. A line that was cut off is done again.
        work: what makes results comparable; those of other work stay in the file and are not read.
    """

    def __init__(self, file: Path, work: str) -> None:
        self._file, self._work = file, work
        self._found: dict[str, Any] = {}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        before = file.read_text("utf-8")
        if before and not before.endswith("\n"):
            file.write_text(f"{before}\n", "utf-8")
        for line in before.splitlines():
            try:
                told = json.loads(line)
            except ValueError:
                continue
            if told["work"] == work:
                self._found[told["key"]] = told["result"]

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def add(self, key: str, result: Any) -> None:
        """Keep a result."""
        self._found[key] = result
        line = json.dumps({"work": self._work, "key": key, "result": result}, allow_nan=False)
        with self._file.open("a", encoding="utf-8") as out:
            out.write(f"{line}\n")

    def of(self, kind: str) -> list[Any]:
        """All results whose keys begin so, in the order of their keys' addition."""
        return [result for key, result in self._found.items() if key.startswith(f"{kind}/")]


def mean(values: Iterable[float]) -> dict[str, float] | None:
    """A mean over prompts with the 95 % interval of a bootstrap over them; None of no values."""
    numbers = torch.tensor(list(values), dtype=torch.float64)
    if not len(numbers):
        return None
    drawn = torch.Generator().manual_seed(0)
    means = numbers[torch.randint(len(numbers), (DRAWS, len(numbers)), generator=drawn)].mean(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"value": float(numbers.mean()), "low": low, "high": high, "n": len(numbers)}


def table(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line for each length, arm, layer, share and window: all measures, and nats beside FastKV's.

    Args:
        records: of prompts that were read with all arms.
    """
    found: dict[tuple[int, str], list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = defaultdict(list)
    for record in records:
        for label, measured in record["arms"].items():
            found[record["length"], label].append((record, measured))
    lines = []
    for (length, written), pairs in found.items():
        label = Label.of(written)
        single = str(Label("fastkv", label.layer, label.keep, label.window))
        needles = [(record, its) for record, its in pairs if record["right"]]
        line: dict[str, Any] = {"length": length, **vars(label)}
        line["nats"] = mean(its["nats"] for _, its in pairs)
        line["nats, needles"] = mean(its["nats"] for _, its in needles)
        line["nats, articles and questions"] = mean(its["nats"] for record, its in pairs if record["right"] is None)
        line["nats less fastkv's"] = mean(
            its["nats"] - record["arms"][single]["nats"] for record, its in pairs if single in record["arms"]
        )
        line["exact, needles"] = mean(float(its["exact"]) for _, its in needles)
        for measure in ("evidence", "values"):
            line[f"{measure} kept"] = mean(its[measure] for _, its in pairs if its[measure] is not None)
        lines.append(line)
    return lines


def by_layer(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Evidence that single layers and joined ones keep, layer by layer: the figure that the paper is about."""
    found: dict[tuple[int, str, str, str], list[Sequence[float]]] = defaultdict(list)
    for record in records:
        for written, recalls in record["layers"].items():
            found[record["length"], *written.split("|")].append(recalls)
    return [
        {
            "length": length, "ranking": ranking, "window": int(window), "keep": float(keep), "prompts": len(rows),
            "evidence kept": [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)],
        }
        for (length, ranking, window, keep), rows in found.items()
    ]  # fmt: skip


def whole_table(records: Sequence[Mapping[str, Any]], times: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """A line for each whole method: the full model's answer through its cache, what that holds, and when it starts.

    Args:
        records: of prompts that were read.
        times: of prompts, name → the time to the first token over that of a full reading.
    """
    lines = []
    for name in records[0]["methods"] if records else ():
        its = [record["methods"][name] for record in records]
        line: dict[str, Any] = {"arm": name, "nats": mean(each["nats"] for each in its)}
        line["same answer"] = mean(float(each["same"]) for each in its)
        line["KV share"] = mean(each["kv_share"] for each in its if each["kv_share"] is not None)
        line["TTFT / full"] = [each[name] for each in times]
        lines.append(line)
    return lines
