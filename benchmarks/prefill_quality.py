"""What pruned prefill costs in quality on a real model: rankings at each layer, and whole methods with times."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from pruning.arms import FULL, QUICK, WINDOW, Label, Part, arms, whole_methods
from pruning.prompts import Asked, prompts, share
from pruning.reading import Reading, chosen, measured, read
from pruning.records import Records, by_layer, mean, table, whole_table
from pruning.tables import markdown
from report import BenchmarkError, Report, Row, arguments, conclude, estimated, finished, running, until_cut
from sparsity_quality import mean_ratio
from transformers import AutoTokenizer
from transformers.utils import logging

from vivace.errors import VivaceError
from vivace.machine.manifest import fingerprint
from vivace.tasks.generated.needles import Needles
from vivace.tasks.scores.metrics import score
from vivace.tracks.efficiency.measured_models import find_target
from vivace.zoo.shipped import folder_of
from vivace_methods.decoding.joined import applied
from vivace_methods.models.anatomy import anatomy
from vivace_methods.models.cost import cost
from vivace_methods.models.loading import load_model
from vivace_methods.prefill.claa import Claa
from vivace_methods.prefill.fastkv import FastKv
from vivace_methods.prefill.reading.asked_passes import asking
from vivace_methods.prefill.reading.attention import showing_attention
from vivace_methods.protocol import Generator, MethodError, Request
from vivace_methods.registry import METHODS, parse_method

FOLDER = Path(__file__).parent
KVPRESS = FOLDER / ".cache" / "kvpress-venv"
"""NVIDIA's kvpress in an environment of its own, which is made once."""
WHOLE_KEEPS = (0.1, 0.2)
RATIOS = (0.4, 0.6)
"""Shares of the cache that kvpress takes away."""
ZOO_ASKED, ZOO_KEEPS = 24, (0.05, 0.1, 0.2, 0.4)
FIRST = 8
"""Prompts of a length that every ranking reads before anything else is done: some of each kind."""
VERSION = 1
"""Of what is measured: another one makes all records anew."""


class Bench:
    """The model that is asked, and what was found so far.

    Args:
        folder: of the model.
        records: of this work.
        say: where progress goes.
    """

    def __init__(self, folder: Path, records: Records) -> None:
        self.folder, self.records = folder, records
        self.model = load_model(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.found = anatomy(self.model)
        ends = self.model.generation_config.eos_token_id
        self.ends = frozenset([ends] if isinstance(ends, int) else ends)

    def rankings(self, part: Part, asked: Sequence[Asked]) -> None:
        """Every ranking on prompts of one length."""
        with ExitStack() as contexts:
            contexts.enter_context(showing_attention(self.found.decoder, "sdpa"))
            model = contexts.enter_context(asking(self.found))
            for number, each in enumerate(asked):
                key = f"rankings/{part.length}/{each.name}"
                if key in self.records:
                    continue
                started = time.perf_counter()
                reading = read(self.model, self.found, model, each, part.layers, self.ends)
                self.records.add(key, self._ranked(part, reading, number))
                taken = time.perf_counter() - started
                print(f"{part.length} tokens, {each.name}: {taken:.0f} s", file=sys.stderr, flush=True)

    def _ranked(self, part: Part, reading: Reading, number: int) -> dict[str, Any]:
        asked = reading.asked
        found = measured(self.found, reading, arms(part, number))
        answer = self.tokenizer.decode(reading.answer, skip_special_tokens=True)
        return {
            "length": part.length,
            "kind": asked.kind,
            "tokens": reading.length,
            "answer": answer,
            "right": asked.is_right(answer),
            "full nats": sum(reading.nats) / len(reading.nats),
            "arms": {label: asdict(its) for label, its in found.items()},
            "layers": self._by_layer(part, reading) if asked.evidence else {},
        }

    def _by_layer(self, part: Part, reading: Reading) -> dict[str, list[float]]:
        """Evidence that each layer's ranking keeps, alone and joined with the three before it."""
        found = {}
        layers = len(self.found.layers)
        for window in part.windows:
            for keep in (0.05, 0.1, 0.2):
                for name, kind in (("single", FastKv), ("joined", Claa)):
                    methods = (kind(keep=keep, layer=layer, window=window) for layer in range(layers))
                    kept = (chosen(reading, method, layers)[1].tolist() for method in methods)
                    shares = [share(reading.asked.evidence, set(its)) or 0.0 for its in kept]
                    found[f"{name}|{window}|{keep}"] = shares
        return found

    def whole(self, part: Part, asked: Sequence[Asked]) -> None:
        """Whole methods, as people use them: the full model's answer through their caches, and what these hold."""
        for each in asked[: part.whole]:
            key = f"whole/{part.length}/{each.name}"
            if key in self.records:
                continue
            request = Request(torch.tensor([each.ids]), each.most_tokens, self.ends)
            answer = self._answered("full", request)[0]
            told = {name: self._method(written, request, answer) for name, written in self._methods().items()}
            self.records.add(key, {"length": part.length, "kind": each.kind, "methods": told})
            print(f"whole methods, {each.name}", file=sys.stderr, flush=True)

    def times(self, part: Part, asked: Sequence[Asked]) -> None:
        """The time of whole methods to the first token, over that of a full reading right before."""
        for each in asked[: part.timed]:
            key = f"times/{part.length}/{each.name}"
            if key in self.records:
                continue
            request = Request(torch.tensor([each.ids]), 1, self.ends)
            self._answered("full", request)
            told = {}
            for name, written in self._methods().items():
                full = self._answered("full", request)[1]
                told[name] = self._answered(written, request)[1] / full
            self.records.add(key, told)
            print(f"times, {each.name}", file=sys.stderr, flush=True)

    def _methods(self) -> dict[str, str]:
        return whole_methods(WHOLE_KEEPS, len(self.found.layers))

    def _method(self, written: str, request: Request, answer: list[int]) -> dict[str, Any]:
        """One method on one prompt: an answer whose every token is the likeliest would be written again."""
        with applied(parse_method(written), self.model) as generator:
            chances = self._along(generator, request, answer)
            figures = generator.generate(replace(request, most_tokens=1), lambda tokens: None).figures
        return {
            "nats": -float(chances[range(len(answer)), answer].mean()),
            "same": chances.argmax(-1).tolist() == answer,
            "kv_share": figures.get("kv_share"),
        }

    @staticmethod
    def _along(generator: Generator, request: Request, answer: list[int]) -> torch.Tensor:
        found = generator.logits(request, answer)
        assert found is not None
        return found.double().log_softmax(-1)

    def _answered(self, written: str, request: Request) -> tuple[list[int], float]:
        """An answer, and the time to its first token in seconds."""
        tokens: list[int] = []
        moments: list[float] = []

        def emit(some: Sequence[int]) -> None:
            moments.append(time.perf_counter())
            tokens.extend(some)

        with applied(parse_method(written), self.model) as generator:
            started = time.perf_counter()
            generator.generate(request, emit)
        return tokens, moments[0] - started

    def beside_kvpress(self, part: Part, asked: Sequence[Asked]) -> str:
        """Our SnapKV beside kvpress's, and its expected attention, on the same prompts; gives a sentence on it."""
        if "snapkv" not in METHODS:
            return "There is no snapkv here to be compared with kvpress."
        if not (KVPRESS / "bin" / "python").exists() and (fault := _kvpress_environment()):
            return f"kvpress was not compared with: its environment could not be made ({fault})."
        needles = [each for each in asked if each.evidence][: part.whole]
        missing = [each for each in needles if f"kvpress/{each.name}" not in self.records]
        jobs = []
        for each in missing:
            request = Request(torch.tensor([each.ids]), each.most_tokens, self.ends)
            jobs.append({"name": each.name, "ids": each.ids, "answer": self._answered("full", request)[0]})
        for told in _kvpress(self.folder, jobs):
            job = next(job for job in jobs if job["name"] == told["name"])
            request = Request(torch.tensor([job["ids"]]), len(job["answer"]), self.ends)
            ours = {}
            for ratio in RATIOS:
                keep = int(len(job["ids"]) * (1 - ratio))
                written = f"snapkv(keep={keep},window={WINDOW},kernel=7)"
                with applied(parse_method(written), self.model) as generator:
                    along = self._along(generator, request, job["answer"])
                ours[f"snapkv|{ratio}"] = -float(along[range(len(job["answer"])), job["answer"]].mean())
            self.records.add(f"kvpress/{told['name']}", {**told["nats"], **ours})
        return ""


def _kvpress_environment() -> str:
    """Install kvpress with the torch that runs here, so that none with CUDA is fetched; gives what went wrong."""
    pip = [str(KVPRESS / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(KVPRESS)],
        [*pip, f"torch=={torch.__version__}", "kvpress==0.5.5"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(KVPRESS, ignore_errors=True)
            return (done.stderr or done.stdout).strip().splitlines()[-1]
    return ""


def _kvpress(folder: Path, jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What kvpress makes of prompts, in its own environment.

    Raises:
        BenchmarkError: it fails.
    """
    if not jobs:
        return []
    asked = json.dumps({"folder": str(folder), "jobs": list(jobs), "ratios": RATIOS, "window": WINDOW, "kernel": 7})
    command = [str(KVPRESS / "bin" / "python"), str(FOLDER / "pruning" / "kvpress_runner.py")]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"kvpress failed: {done.stderr.strip().splitlines()[-1] if done.stderr else 'no word'}.")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]


def on_the_zoo(records: Records) -> None:
    """The zoo's retrieval model under whole methods: right answers against FLOPs."""
    folder = folder_of("retrieval")
    model, tokenizer = load_model(folder), AutoTokenizer.from_pretrained(folder)
    task = Needles(512)
    for sample in task.samples(ZOO_ASKED, 1):
        key = f"zoo/{sample.id}"
        if key in records:
            continue
        ends = frozenset({tokenizer.eos_token_id})
        request = Request(torch.tensor([tokenizer(sample.prompt)["input_ids"]]), task.most_tokens, ends)
        found = {}
        for name, written in [("full", "full"), *((f"{name} keep {keep:.0%}", f"{name}(keep={keep})")
                              for name in ("claa", "fastkv", "gemfilter", "oracle", "random", "recency")
                              if name in METHODS for keep in ZOO_KEEPS)]:  # fmt: skip
            tokens: list[int] = []
            with applied(parse_method(written), model) as generator:
                passes = generator.generate(request, tokens.extend).passes
            answer = tokenizer.decode(tokens, skip_special_tokens=True)
            flops = cost(model.config, [one for one in passes if one.kind == "read"], model.dtype).flops
            found[name] = {"right": score(answer, task.metric, sample), "flops": flops}
        records.add(key, found)


def zoo_table(records: Records) -> list[dict[str, Any]]:
    """A line for each method on the zoo."""
    rows = records.of("zoo")
    names = list(rows[0]) if rows else []
    return [
        {
            "arm": name,
            "right": mean(row[name]["right"] for row in rows),
            "FLOPs of reading / full": mean(row[name]["flops"] / row["full"]["flops"] for row in rows),
        }
        for name in names
    ]


def rows_of(records: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Each ranking's nats beside FastKV's, at the usual window, over the same prompts."""
    found: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for record in records:
        for written, its in record["arms"].items():
            label = Label.of(written)
            single = record["arms"].get(str(Label("fastkv", label.layer, label.keep, label.window)))
            if label.arm in ("claa", "oracle", "random", "uniform", "recency") and label.window == WINDOW and single:
                found.setdefault((record["length"], written), []).append((its["nats"], single["nats"]))
    rows = []
    for (length, written), pairs in found.items():
        label = Label.of(written)
        case = f"{length:,} tokens, behind layer {label.layer}, keep {label.keep:.0%}"
        ratio = mean_ratio(*map(list, zip(*pairs, strict=True)))
        rows.append(estimated(case, label.arm, "fastkv", "nats", ratio))
    return rows


def measure(options: argparse.Namespace, parts: Sequence[Part], folder: Path, records: Records) -> Iterator[str]:
    """Everything that is not recorded yet; gives sentences on what could not be.

    Args:
        options: of the command line.
        parts: of the work.
        folder: of the model.
        records: of this work.
    """
    bench = Bench(folder, records)
    for part in parts:
        asked = prompts(bench.tokenizer, part.length, part.prompts, options.prompts)
        bench.rankings(part, asked[:FIRST])
        if part.whole:
            on_the_zoo(records)
            bench.times(part, asked)
            bench.whole(part, asked)
            yield bench.beside_kvpress(part, asked)
        bench.rankings(part, asked)


def benchmark(options: argparse.Namespace) -> int:
    """Everything that is not recorded yet, and the figures of all that is."""
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    target = find_target(options.model, None, options.home)
    if target.checkpoint is None:
        raise BenchmarkError(f"{options.model} has no weights to be read.")
    parts = [part for part in (QUICK if options.quick else FULL) if part.length <= (options.longest or part.length)]
    if options.limit is not None:
        parts = [replace(part, prompts=options.limit) for part in parts]
    made_of = [VERSION, options.model, None if options.prompts is None else str(options.prompts.name), options.quick]
    file = options.records or FOLDER / ".cache" / f"prefill_quality{'_quick' if options.quick else ''}.jsonl"
    records = Records(file, fingerprint(made_of))
    remarks: list[str] = []
    with until_cut(remarks):
        remarks.extend(measure(options, parts, target.checkpoint.fetched(), records))
    rankings = records.of("rankings")
    details = running(
        work={"parts": [asdict(part) for part in parts], "model": options.model, "threads": options.threads},
        prompts=[{key: record[key] for key in ("length", "kind", "tokens", "answer", "right", "full nats")}
                 for record in rankings],
        table=table(rankings), layers=by_layer(rankings), whole=whole_table(records.of("whole"), records.of("times")),
        zoo=zoo_table(records), kvpress=_kvpress_table(records.of("kvpress")),
        remarks=[remark for remark in remarks if remark],
    )  # fmt: skip
    if options.tables is not None:
        options.tables.parent.mkdir(parents=True, exist_ok=True)
        options.tables.write_text(markdown(details, WINDOW), encoding="utf-8")
    return conclude(Report("prefill_quality", details, rows_of(rankings), {}), options)


def _kvpress_table(records: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    names = list(records[0]) if records else []
    return [{"arm": name, "nats": mean(record[name] for record in records)} for name in names]


def main() -> int:
    """Run the benchmark."""
    parser = arguments(__doc__ or "", "three prompts of 400 tokens, two layers, two shares")
    parser.add_argument("--model", default="packaged:smollm2-135m", help="a causal language model with a tokenizer")
    parser.add_argument("--home", type=Path, default=Path(".vivace"), help="where `vivace models get` put it")
    parser.add_argument("--prompts", type=Path, metavar="FOLDER", help="with sum.jsonl and qa.jsonl in EAGLE's form")
    parser.add_argument("--records", type=Path, metavar="FILE", help="where finished prompts are kept")
    parser.add_argument("--tables", type=Path, metavar="FILE", help="write the tables there as Markdown")
    parser.add_argument("--limit", type=int, metavar="PROMPTS", help="so many of each length in place of the usual")
    parser.add_argument("--longest", type=int, metavar="TOKENS", help="leave longer prompts to another time")
    parser.add_argument("--threads", type=int, default=2, help="of the processor")
    return finished(benchmark, parser.parse_args(), VivaceError, MethodError)


if __name__ == "__main__":
    sys.exit(main())
