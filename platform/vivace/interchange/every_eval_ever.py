"""Records in the schema of Every Eval Ever 0.3.0: one of a judging as a whole, and one for each verdict behind it."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from vivace import __version__
from vivace.output.printable import json_text

if TYPE_CHECKING:
    from vivace.interchange.judged import Judged
    from vivace.store.queries.board import BoardRow
    from vivace.store.queries.figures import Figures

SCHEMA = "0.3.0"
LIBRARY = "vivace"
METRICS = {
    "apr": ("average pass rate", "Conversations with every criterion met, of those with every criterion scored."),
    "ars": ("average rubric score", "Criteria met, of criteria scored."),
}
"""Metric → its name and what it is."""


def write_records(judged: Judged, folder: Path) -> list[Path]:
    """Write the records below a folder, `data/audio-multichallenge/DEVELOPER/MODEL/ID…`.

    Besides the two files of the schema there is one of ours, `ID_unscored.jsonl`: the schema's verdicts have two
    values, so that what is unscored is in none of its lines, and here with its reason.

    Returns:
        The files.

    Raises:
        OSError: a file cannot be written.
    """
    row = judged.row
    developer, _, name = _model_id(row).rpartition("/")
    place = Path("data", row.track, developer, name)
    id = str(UUID(bytes=hashlib.sha256(row.judging.encode()).digest()[:16], version=4))
    lines = "".join(json_text(line) + "\n" for line in instances(judged))
    left = "".join(json_text(line) + "\n" for line in unscored(judged))
    detailed = place / f"{id}_samples.jsonl"
    whole = {
        **aggregate(judged),
        "detailed_evaluation_results": {
            "format": "jsonl",
            "file_path": detailed.as_posix(),
            "hash_algorithm": "sha256",
            "checksum": hashlib.sha256(lines.encode()).hexdigest(),
            "total_rows": lines.count("\n"),
        },
    }
    texts = {
        place / f"{id}.json": json_text(whole, indent=2) + "\n",
        detailed: lines,
        place / f"{id}_unscored.jsonl": left,
    }
    (folder / place).mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        (folder / path).write_text(text, encoding="utf-8")
    return [folder / path for path in texts]


def aggregate(judged: Judged) -> dict[str, Any]:
    """The record of the whole: APR and ARS, and each of every axis, with interval, bounds and unscored counts."""
    row = judged.row
    weights = {None: "unknown", True: "open_weights", False: "closed_weights"}[judged.open_weights]
    stamp = str(int(row.date.timestamp()))
    return {
        "schema_version": SCHEMA,
        "evaluation_id": _evaluation_id(row),
        "evaluation_timestamp": stamp,
        "retrieved_timestamp": stamp,
        "source_metadata": {
            "source_name": "Vivace",
            "source_type": "evaluation_run",
            "source_organization_name": "unknown",
            "evaluator_relationship": "other",
            "additional_details": {"judging": row.judging, "run": row.run, "official": str(row.official).lower()},
        },
        "eval_library": {"name": LIBRARY, "version": __version__},
        "model_info": {
            "name": row.model,
            "id": _model_id(row),
            "developer": row.organisation or "unknown",
            "additional_details": {
                "deployment_type": "unknown",
                "model_availability": weights,
                "input_form": row.input_form,
                "output_form": row.output_form,
                "method": row.method or "none",
                "hearing_check": row.hearing or "none",
            },
        },
        "evaluation_results": list(_results(judged)),
    }


def _results(judged: Judged) -> Iterator[dict[str, Any]]:
    row = judged.row
    for slice, figures in {"": row.figures, **row.axes}.items():
        for metric, (title, meaning) in METRICS.items():
            value = getattr(figures, metric)
            if value is None:
                continue
            yield {
                "evaluation_result_id": _result_id(row, metric, slice),
                "evaluation_name": _name(row, metric, slice),
                "source_data": _source_data(row),
                "metric_config": {
                    "evaluation_description": meaning,
                    "metric_id": metric,
                    "metric_name": title,
                    "metric_unit": "proportion",
                    "lower_is_better": False,
                    "score_type": "continuous",
                    "min_score": 0.0,
                    "max_score": 1.0,
                    "llm_scoring": {
                        "judges": [
                            {
                                "model_info": {
                                    "name": row.judge,
                                    "id": row.judge,
                                    "additional_details": {
                                        "deployment_type": "unknown",
                                        "model_availability": "unknown",
                                        "fingerprint": row.judge_fingerprint,
                                    },
                                }
                            }
                        ],
                        "input_prompt": f"part of the judge's fingerprint {row.judge_fingerprint}",
                        "aggregation_method": "majority_vote",
                        "additional_details": {"votes": str(row.votes)},
                    },
                },
                "score_details": _score(metric, value, figures, _planned_and_unscored(judged, metric, slice)),
                "generation_config": {
                    "additional_details": {key: json_text(value) for key, value in row.parameters.items()}
                },
            }


def _planned_and_unscored(judged: Judged, metric: str, slice: str) -> tuple[int, int]:
    """What a rate is of: replies and those of them not wholly scored for APR, criteria for ARS."""
    replies = [items for items in _by_reply(judged.items).values() if slice in ("", items[0]["axis"])]
    verdicts = [[item["met"] for item in items] for items in replies]
    if metric == "apr":
        return len(replies), sum(None in reply for reply in verdicts)
    return sum(map(len, verdicts)), sum(reply.count(None) for reply in verdicts)


def _score(metric: str, value: float, figures: Figures, counted: tuple[int, int]) -> dict[str, Any]:
    low, high = getattr(figures, f"{metric}_low"), getattr(figures, f"{metric}_high")
    least, most = getattr(figures, f"{metric}_min"), getattr(figures, f"{metric}_max")
    planned, unscored = counted
    details = {
        "planned": planned,
        "unscored": unscored,
        "unscored_criteria": figures.unscored,
        "criteria": figures.criteria,
        "coverage": figures.coverage,
        "lowest_if_all_unscored_fail": least,
        "highest_if_all_unscored_pass": most,
    }
    found: dict[str, Any] = {
        "score": value,
        "details": {key: str(told) for key, told in details.items() if told is not None},
    }
    if low is not None:
        found["uncertainty"] = {
            "confidence_interval": {
                "lower": low,
                "upper": high,
                "confidence_level": 0.95,
                "method": "by conversation",
            },
            "num_samples": figures.n,
        }
    return found


def _source_data(row: BoardRow) -> dict[str, Any]:
    details = {"revision": row.data_revision, "repeats": str(row.repeats)}
    if "/" in row.data:
        return {"dataset_name": row.data, "source_type": "hf_dataset", "hf_repo": row.data,
                "samples_number": row.figures.n, "additional_details": details}  # fmt: skip
    return {"dataset_name": row.data, "source_type": "other", "additional_details": details}


def instances(judged: Judged) -> Iterator[dict[str, Any]]:
    """A line for each conversation that is wholly scored (of APR), and one for each criterion that is (of ARS)."""
    for items in _by_reply(judged.items).values():
        verdicts, sample = [item["met"] for item in items], _sample(judged, items[0])
        if None not in verdicts:
            yield _instance(judged, items, "apr", sample, all(verdicts))
        for item in items:
            if item["met"] is not None:
                yield _instance(judged, [item], "ars", f"{sample}#{item['criterion']}", bool(item["met"]))


def unscored(judged: Judged) -> Iterator[dict[str, Any]]:
    """A line for each criterion without a verdict (of ARS), with the reason."""
    for item in judged.items:
        if item["vote"] == 0 and item["met"] is None:
            yield {
                "evaluation_id": _evaluation_id(judged.row),
                "evaluation_result_id": _result_id(judged.row, "ars", ""),
                "sample_id": f"{_sample(judged, item)}#{item['criterion']}",
                **{key: item[key] for key in ("conversation", "repeat", "criterion", "unscored_reason")},
            }


def _sample(judged: Judged, item: Mapping[str, Any]) -> str:
    """A reply's name."""
    return str(item["conversation"]) + ("" if judged.row.repeats == 1 else f"/{item['repeat']}")


def _by_reply(items: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = defaultdict(list)
    for item in items:
        if item["vote"] == 0:
            found[str(item["conversation"]), int(item["repeat"])].append(item)
    return found


def _instance(
    judged: Judged, items: Sequence[Mapping[str, Any]], metric: str, sample: str, is_met: bool
) -> dict[str, Any]:
    row, first = judged.row, items[0]
    turns = judged.turns[str(first["conversation"])]
    messages = [(turn.role, turn.transcript) for turn in turns] + [("assistant", first["reply"])]
    question = {
        "raw": "\n".join(turn.transcript or "" for turn in turns if turn.role == "user"),
        "reference": [str(item["criterion_text"]) for item in items],
    }
    hashed = json.dumps(question, sort_keys=True, separators=(",", ":"))
    recordings = {f"audio_sha256_{turn.number}": turn.audio_sha256 for turn in turns if turn.audio_sha256}
    last = len(messages) - 1
    line = {
        "schema_version": SCHEMA,
        "evaluation_id": _evaluation_id(row),
        "model_id": _model_id(row),
        "evaluation_name": _name(row, metric, ""),
        "evaluation_result_id": _result_id(row, metric, ""),
        "sample_id": sample,
        "sample_hash": hashlib.sha256(hashed.encode()).hexdigest(),
        "interaction_type": "multi_turn",
        "input": question,
        "output": None,
        "messages": [
            {"turn_idx": number, "role": role, "content": content} for number, (role, content) in enumerate(messages)
        ],
        "answer_attribution": [
            {
                "turn_idx": last,
                "source": f"messages[{last}].content",
                "extracted_value": first["reply"] or "",
                "extraction_method": "llm_judge",
                "is_terminal": True,
            }
        ],
        "evaluation": {"score": float(is_met), "is_correct": is_met, "num_turns": len(turns)},
        "metadata": {"axis": str(first["axis"]), "times": str(first["times"]), **recordings},
    }
    took = {"latency_ms": first["total_s"], "time_to_first_token_ms": first["ttft_s"]}
    known = {name: 1000 * seconds for name, seconds in took.items() if seconds is not None}
    return {**line, "performance": known} if "latency_ms" in known else line


def _evaluation_id(row: BoardRow) -> str:
    return f"{row.track}/{_model_id(row)}/{int(row.date.timestamp())}"


def _result_id(row: BoardRow, metric: str, slice: str) -> str:
    return "/".join(filter(None, [row.judging, metric, slice.lower()]))


def _name(row: BoardRow, metric: str, slice: str) -> str:
    return " ".join(filter(None, [row.track, metric.upper(), slice.lower().replace("_", " ")]))


def _model_id(row: BoardRow) -> str:
    """In the form of the hub, the developer before the name; both as folders are called, which must agree."""
    developer, _, name = row.model.rpartition("/")
    return f"{_safe(developer or row.organisation or 'unknown')}/{_safe(name)}"


def _safe(name: str) -> str:
    """A name as a folder, whatever is in it."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:100] or "unknown"
