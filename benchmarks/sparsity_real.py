"""What reading fewer bytes costs and buys on a real small model: sparsity, rivals of fewer bits, and both at once.

Every arm answers the same questions, one right after the other, and quality, bytes and times all come from these
answers. Each answer is kept in a file as soon as it is there: the same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from report import BenchmarkError, Report, Row, arguments, conclude, estimated, finished, running, until_cut
from sparsity_quality import mean_ratio
from transformers import AutoTokenizer

from vivace.errors import UsageError
from vivace.models.packaged import PREFIX, recipe_folder
from vivace.tasks.base import Sample
from vivace.tasks.fitted.haystack import Haystack
from vivace.tasks.perplexity import divergence
from vivace.tasks.scores.metrics import score
from vivace.tracks.efficiency.measured_models import find_target
from vivace.tracks.efficiency.recipes import fit_arm
from vivace.tracks.efficiency.session.token_prompts import token_ids
from vivace_methods.decoding.joined import applied
from vivace_methods.models.cost import cost
from vivace_methods.models.loading import load_model
from vivace_methods.models.shared_copy import shared_copy
from vivace_methods.protocol import Generator, MethodError, Request
from vivace_methods.registry import parse_method
from vivace_methods.timing.ratios import Estimate, paired_ratio

MODEL = f"{PREFIX}smollm2-135m"
BASELINE, STRONGER = "dense", "teal"
ARMS = {
    "dense": "dense",
    "int8": "int8",
    "int4": "int4",
    "int4, groups of 64": "int4(group=64)",
    "teal": "teal",
    "wina": "wina",
    "cats at 40 %": "cats(sparsity=0.4)",
    "low-rank": "low-rank",
    "r-sparse, uniform": "r-sparse(ratio=0.95)",
    "r-sparse, greedy levels": "r-sparse(ratio=0.95,levels=greedy)",
    "teal, greedy levels": "teal(levels=greedy)",
    "teal at 25 %": "teal(sparsity=0.25)",
    "r-sparse at 25 %": "r-sparse(sparsity=0.25,ratio=0.95)",
    "teal over int8": "teal(weights=int8)",
    "wina over int8": "wina(weights=int8)",
    "r-sparse over int8": "r-sparse(ratio=0.95,weights=int8)",
    "teal at 25 % over int8": "teal(sparsity=0.25,weights=int8)",
}
"""All at 50 % where nothing else is said: half the bytes of bfloat16, as many as int8 reads. The packaged weights had
four bits in groups of 32 once, whose levels int4 finds again; groups of 64 are a fairer rival."""
SEARCHED = {"r-sparse, searched": "r-sparse"}
"""Takes far longer to fit than everything else takes to measure, and is asked for."""
ABLATION = {
    "uniform, dropped factors": "r-sparse(ratio=0.95,factors=dropped)",
    "uniform, magnitude": "r-sparse(ratio=0.95,criterion=magnitude)",
    "uniform, released criterion": "r-sparse(ratio=0.95,criterion=released)",
    "uniform, calibrated at once": "r-sparse(ratio=0.95,sequential=false)",
    "uniform at 0.98": "r-sparse(ratio=0.98)",
    "uniform at 0.8": "r-sparse(ratio=0.8)",
    "uniform at 0.5": "r-sparse(ratio=0.5)",
}
FEWER = {"uniform, 2,048 tokens": "r-sparse(ratio=0.95)", "teal, 2,048 tokens": "teal"}
"""Calibrated on a quarter of the text; like the ablation, they predict and answer nothing."""
SHIPPED = {"teal": "smollm2-teal", "r-sparse(ratio=0.95)": "smollm2-r-sparse"}
"""Label of what was fitted → the recipe that comes with Vivace, where the model is the packaged one."""
CALIBRATED = 8192
WINDOW = 512
LIMIT = 1e-4
"""How far the dense perplexity may lie from what transformers computes by itself, in float32."""
LIMITS: Mapping[str | tuple[str, str], float] = {"perplexity, float32": 1 + LIMIT}


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        windows: of articles, whose second halves are predicted.
        length: of a window, in tokens.
        asked: questions of each set.
        answers: tokens of an answer at most, of each set.
        checked: windows over which the dense arm is held to transformers.
        calibrated: tokens that arms are fitted on.
        arms: by their names.
    """

    windows: int = 24
    length: int = WINDOW
    asked: Mapping[str, int] = field(default_factory=lambda: {"qa": 32, "gsm8k": 24, "sum": 12, "needles": 15})
    answers: Mapping[str, int] = field(default_factory=lambda: {"qa": 32, "gsm8k": 128, "sum": 96, "needles": 12})
    checked: int = 1
    calibrated: int = CALIBRATED
    arms: Mapping[str, str] = field(default_factory=lambda: ARMS)


QUICK = Size(
    windows=2,
    length=96,
    asked={"qa": 5, "gsm8k": 0, "sum": 0, "needles": 0},
    answers={"qa": 8, "gsm8k": 0, "sum": 0, "needles": 0},
    checked=1,
    arms={name: ARMS[name] for name in ("dense", "int8", "int4", "teal", "r-sparse, uniform", "teal over int8")},
)


@dataclass(frozen=True, eq=False)
class Item:
    """Something that every arm is given.

    Attributes:
        part: `language`, whose answer is forced, or the set that a question is from.
        name: inside the part.
        prompt: token ids, shape (1, length).
        answer: that is predicted; empty of questions, which arms answer themselves.
        most: tokens of its own answer.
        sample: with its references; None where nothing is scored.
        metric: by which an answer is scored.
    """

    part: str
    name: str
    prompt: torch.Tensor
    answer: tuple[int, ...] = ()
    most: int = 0
    sample: Sample | None = None
    metric: str = ""

    @property
    def request(self) -> Request:
        """Without tokens that end it: all arms write as many, so that their times can be compared."""
        return Request(self.prompt, self.most or len(self.answer))


Expected = Callable[[Item], torch.Tensor]
"""What the dense model predicts of a window's second half."""


class Records:
    """What was measured so far, a JSON line each.

    Args:
        path: of the file.
        identity: what it belongs to; a file of something else is refused.

    Raises:
        BenchmarkError: the file is of another measurement.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._known: dict[tuple[str, str, str], dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.read_text() if path.is_file() else ""
        lines = written.splitlines()
        if written and not written.endswith("\n"):  # cut short: what comes next begins a line of its own
            path.write_text(written + "\n")
        if not lines:
            path.write_text(json.dumps(identity) + "\n")
        elif json.loads(lines[0]) != json.loads(json.dumps(identity)):
            raise BenchmarkError(f"{path} holds what another measurement found: move it away, or name another file.")
        for line in lines[1:]:
            try:
                found = json.loads(line)
            except ValueError:
                continue  # cut short when it was interrupted
            self._known[found["arm"], found["part"], found["item"]] = found

    def has(self, arm: str, item: Item) -> bool:
        """Whether an arm was given an item."""
        return (arm, item.part, item.name) in self._known

    def add(self, arm: str, item: Item, **found: Any) -> None:
        """Keep what an arm made of an item."""
        line = {"arm": arm, "part": item.part, "item": item.name, **found}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._known[arm, item.part, item.name] = line

    def leave_out(self, items: Iterable[Item]) -> None:
        """Look no more at what was found of some items; the file keeps it."""
        left = {(item.part, item.name) for item in items}
        self._known = {key: found for key, found in self._known.items() if key[1:] not in left}

    def of(self, arm: str, part: str) -> dict[str, dict[str, Any]]:
        """Name of each item of a part → what an arm made of it."""
        return {item: found for (its, of, item), found in self._known.items() if (its, of) == (arm, part)}


def articles(folder: Path | None) -> list[str]:
    """News articles; without a folder of prompts, essays of Vivace's own, so that the benchmark runs anywhere."""
    if folder is None:
        return [sample.prompt for sample in Haystack(shortest=2048, longest=2048, lengths=1).samples(48, 0)]
    return [row["turns"][0].removeprefix("Summarize: ") for row in rows_of_file(folder / "sum.jsonl")]


def rows_of_file(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of EAGLE's form.

    Raises:
        BenchmarkError: it cannot be read.
    """
    try:
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path} cannot be read: {error}.") from error


def language_items(texts: Sequence[str], tokenizer: Any, size: Size) -> list[Item]:
    """Windows of articles that nothing was calibrated on, one of each; the second halves are predicted."""
    found = []
    for place, text in enumerate(texts):
        ids, half = token_ids(text, tokenizer, plain=True)[: size.length], size.length // 2
        if len(ids) == size.length and len(found) < size.windows:
            found.append(Item("language", str(place), torch.tensor([ids[:half]]), tuple(ids[half:])))
    return found


def asked_items(folder: Path | None, tokenizer: Any, size: Size) -> Iterator[Item]:
    """Questions of each set; those in need of files only where these are."""
    metrics = {"qa": "", "gsm8k": "number", "sum": "rouge_l"}
    for part, metric in metrics.items():
        rows = [] if folder is None or not size.asked[part] else rows_of_file(folder / f"{part}.jsonl")
        # Articles at odd places are not calibrated on.
        for row in (rows[1::2] if part == "sum" else rows)[: size.asked[part]]:
            sample = Sample(str(row["question_id"]), row["turns"][0], tuple(row.get("reference", ())))
            ids = torch.tensor([token_ids(sample.prompt, tokenizer)])
            yield Item(part, sample.id, ids, most=size.answers[part], sample=sample, metric=metric)
    task = Haystack(shortest=1024, longest=1024, lengths=1)
    for sample in task.samples(size.asked["needles"], 1) if size.asked["needles"] else ():
        whole = task.fitted(sample, lambda each: len(token_ids(each.prompt, tokenizer, each.begun)))
        ids = torch.tensor([token_ids(whole.prompt, tokenizer, whole.begun)])
        yield Item("needles", whole.id, ids, most=size.answers["needles"], sample=whole, metric=task.metric)


def fitted(arm: str, written: str, model: Any, texts: Sequence[torch.Tensor], work: Path) -> Any:
    """What an arm learns of the model: shipped, kept from an earlier time, or fitted now; None for those that need
    nothing."""
    method: Any = parse_method(written)
    if "recipe" not in method.needs:
        return None
    shipped = SHIPPED.get(method.fitted_label)
    if shipped is not None and arm not in FEWER:
        try:
            return method.read_fitted(recipe_folder(shipped), model)
        except MethodError:
            pass  # for other weights than these
    begun = time.monotonic()

    def tell(done: int, steps: int) -> None:
        left = (time.monotonic() - begun) * (steps - done) / max(done, 1)
        print(f"\r{arm}: fitted {done} of {steps}, about {left:.0f} s left  ", end="", file=sys.stderr)

    folder = fit_arm(method, model, "measured", "articles", texts, work, tell)
    return method.read_fitted(folder, model)


def predict(
    name: str, method: Any, recipe: Any, model: Any, items: Sequence[Item], records: Records, expected: Expected
) -> None:
    """Let an arm predict the second halves of windows, each in one pass of which just these tokens are sparse.

    That leaves out what decoding token by token would leave out, in a twentieth of the time.
    """
    missing = [item for item in items if not records.has(name, item)]
    if "prompt" in method.settings:
        method = replace(method, prompt=0.5)
    copy = shared_copy(model)
    with method.attach(copy, recipe), torch.inference_mode():
        for item in missing:
            print(f"\r{name}: window {item.name}  ", end="", file=sys.stderr)
            found = second_half(copy, item)
            nats = -found.double().log_softmax(-1)[range(len(item.answer)), list(item.answer)].mean()
            kl = divergence(expected(item), found).mean()
            records.add(name, item, nats=float(nats), kl=float(kl))


def second_half(model: Any, item: Item) -> torch.Tensor:
    """The predictions of a window's answer, shape (tokens, vocabulary)."""
    ids = torch.cat((item.prompt, torch.tensor([item.answer])), 1)
    found: torch.Tensor = model(ids, use_cache=False).logits[0, item.prompt.shape[1] - 1 : -1]
    return found


def measure(
    generators: Mapping[str, Generator], items: Sequence[Item], records: Records, configuration: Any, tokenizer: Any
) -> None:
    """Ask every arm every question, one right after the other; their order turns from question to question."""
    names = list(generators)
    begun = time.monotonic()
    for number, item in enumerate(items):
        missing = [name for name in names if not records.has(name, item)]
        first = number % max(len(missing), 1)
        for name in missing[first:] + missing[:first]:
            records.add(name, item, **answered(generators[name], item, configuration, tokenizer))
        left = (time.monotonic() - begun) * (len(items) - number - 1) / (number + 1)
        print(f"\r{number + 1} of {len(items)} questions, about {left:.0f} s left  ", end="", file=sys.stderr)
    print(file=sys.stderr)


def answered(generator: Generator, item: Item, configuration: Any, tokenizer: Any) -> dict[str, Any]:
    """An answer with its score, the bytes of each decoded token, and the seconds of each."""
    tokens: list[int] = []
    stamps: list[float] = []

    def emit(step: Sequence[int]) -> None:
        tokens.extend(step)
        stamps.append(time.perf_counter())

    trace = generator.generate(item.request, emit)
    decoded = [one for one in trace.passes if one.kind == "decode"]
    text = tokenizer.decode(tokens, skip_special_tokens=False).partition(tokenizer.eos_token)[0]
    return {
        "text": text,
        "score": None if item.sample is None or not item.metric else score(text, item.metric, item.sample),
        "bytes": cost(configuration, decoded, torch.bfloat16).weight_bytes / len(decoded),
        "seconds": (stamps[-1] - stamps[0]) / (len(stamps) - 1),
    }


def held_to_transformers(folder: Path, items: Sequence[Item]) -> tuple[float, float]:
    """Perplexity of windows' second halves in float32: by the dense arm, token by token; by transformers at once."""
    model = load_model(folder)
    ours, theirs = 0.0, 0.0
    with applied(parse_method("dense"), shared_copy(model)) as dense, torch.inference_mode():
        for item in items:
            found = dense.logits(item.request, item.answer)
            assert found is not None
            plain = second_half(model, item)
            wanted = (range(len(item.answer)), list(item.answer))
            ours -= float(found.double().log_softmax(-1)[wanted].mean())
            theirs -= float(plain.double().log_softmax(-1)[wanted].mean())
    return math.exp(ours / len(items)), math.exp(theirs / len(items))


def rows_of(records: Records, names: Sequence[str], parts: Sequence[str]) -> list[Row]:
    """Every arm beside dense, and its divergence beside TEAL's."""
    rows = []
    for name in names:
        if name == BASELINE:
            continue
        dense, its = records.of(BASELINE, "language"), records.of(name, "language")
        common = sorted(dense.keys() & its.keys())
        if len(common) >= 2:
            more = difference([its[each]["nats"] for each in common], [dense[each]["nats"] for each in common])
            value, low, high = (math.exp(more[each]) for each in ("value", "low", "high"))
            ratio = Estimate(value, low, high, len(common))
            rows.append(estimated("language", name, BASELINE, "perplexity", ratio))
            teal = records.of(STRONGER, "language")
            if name != STRONGER and all(each in teal for each in common):
                ratio = mean_ratio([its[each]["kl"] for each in common], [teal[each]["kl"] for each in common])
                rows.append(estimated("language", name, STRONGER, "kl", ratio))
        pairs = [
            (part, item, found, records.of(BASELINE, part)[item])
            for part in parts
            for item, found in records.of(name, part).items()
            if item in records.of(BASELINE, part)
        ]
        if len(pairs) >= 5:
            groups = [f"{part}/{item}" for part, item, _, _ in pairs]
            floor = None
            for metric, its_name in (("bytes", "weight_bytes"), ("seconds", "tpot_s")):
                mine, other = ([pair[column][metric] for pair in pairs] for column in (2, 3))
                ratio = paired_ratio(mine, other, groups)
                rows.append(estimated("answers", name, BASELINE, its_name, ratio, floor=floor))
                floor = ratio.value  # of the time, at the rate at which a good baseline reads
    return rows


def table_of(records: Records, names: Sequence[str], parts: Sequence[str]) -> list[dict[str, Any]]:
    """Each arm's figures; differences from dense are paired by item, with a bootstrap interval at 95 %."""
    table = []
    for name in names:
        language = list(records.of(name, "language").values())
        line: dict[str, Any] = {"arm": name, "windows": len(language)}
        if language:
            line["perplexity"] = math.exp(sum(each["nats"] for each in language) / len(language))
            line["kl"] = sum(each["kl"] for each in language) / len(language)
        answers = [found for part in parts for found in records.of(name, part).values()]
        if answers:
            line["megabytes_a_token"] = sum(each["bytes"] for each in answers) / len(answers) / 1e6
            seconds = sorted(each["seconds"] for each in answers)
            line["tokens_a_second"] = 1 / seconds[len(seconds) // 2]
        for part in parts:
            its, dense = records.of(name, part), records.of(BASELINE, part)
            scored = [item for item, found in its.items() if found["score"] is not None and item in dense]
            if scored:
                mine = [its[item]["score"] for item in scored]
                line[part] = sum(mine) / len(mine)
                line[f"{part}_difference"] = difference(mine, [dense[item]["score"] for item in scored])
            if its and all(item in dense for item in its):
                same = [float(its[item]["text"] == dense[item]["text"]) for item in its]
                line[f"{part}_same_text"] = sum(same) / len(same)
        table.append(line)
    return table


def difference(mine: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """The mean difference over pairs, with a bootstrap interval that draws pairs."""
    pairs = torch.tensor(mine, dtype=torch.float64) - torch.tensor(other, dtype=torch.float64)
    drawn = torch.randint(len(pairs), (4000, len(pairs)), generator=torch.Generator().manual_seed(0))
    low, high = pairs[drawn].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"value": float(pairs.mean()), "low": low, "high": high, "n": len(pairs)}


LLAMA_CPP = """
import json, sys, time
from llama_cpp import Llama, __version__
model = Llama(sys.argv[1], n_ctx=1024, n_threads=int(sys.argv[2]), verbose=False)
prompt = model.tokenize(b"Write a long story about the sea.")
rates = []
for _ in range(5):
    model.reset()
    stamps = []
    for token in model.generate(prompt, temp=0.0):
        stamps.append(time.perf_counter())
        if len(stamps) == 65:
            break
    rates.append((len(stamps) - 1) / (stamps[-1] - stamps[0]))
print(json.dumps({"version": __version__, "tokens_a_second": sorted(rates)[2]}))
"""


def llama_cpp(python: Path | None, file: Path) -> Any:
    """Tokens a second of llama.cpp on the same weights, as their package has them; or why they are not known."""
    if python is None:
        return "not measured: name a Python that has llama-cpp-python with --llama-cpp"
    done = subprocess.run(
        [str(python), "-c", LLAMA_CPP, str(file), str(torch.get_num_threads())],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if done.returncode:
        return f"not measured: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'it failed'}"
    return json.loads(done.stdout.strip().splitlines()[-1])


def _inferred(model: Any, item: Item) -> torch.Tensor:
    with torch.inference_mode():
        return second_half(model, item)


def benchmark(options: argparse.Namespace) -> int:
    """Everything."""
    size = QUICK if options.quick else Size(windows=options.windows)
    arms = {**size.arms, **(SEARCHED if options.searched else {})}
    if options.arms:
        known = {**ARMS, **SEARCHED}
        arms = {BASELINE: BASELINE, **{name: known[name] for name in options.arms.split(";")}}
    lesser = {**ABLATION, **FEWER} if options.ablation else {}
    torch.set_num_threads(options.threads)
    target = find_target(MODEL, None, options.home)
    assert target.checkpoint is not None
    folder = target.checkpoint.fetched()
    model, tokenizer = load_model(folder, dtype=torch.bfloat16), AutoTokenizer.from_pretrained(folder)
    texts = articles(options.prompts)
    ids = token_ids("\n\n".join(texts[0::2]), tokenizer, plain=True)[: size.calibrated]
    calibration = [torch.tensor([ids[start : start + WINDOW]]) for start in range(0, len(ids), WINDOW)]
    language = language_items(texts[1::2], tokenizer, size)
    asked = list(asked_items(options.prompts, tokenizer, size))
    if not language:
        raise BenchmarkError(f"No article has {size.length} tokens.")
    given = hashlib.sha256(json.dumps([ids, texts, size.length]).encode())
    identity = {"model": MODEL, "threads": options.threads, "given": given.hexdigest()}
    records = Records(options.records, identity)
    ours, theirs = held_to_transformers(folder, language[: size.checked])
    print(f"dense perplexity in float32: {ours:.6f}; by transformers alone: {theirs:.6f}", flush=True)
    notes: list[str] = []
    with until_cut(notes), ExitStack() as stack:
        generators: dict[str, Generator] = {}
        expected = lru_cache(None)(partial(_inferred, model))
        for name, written in {**arms, **lesser}.items():
            fewer = calibration[: len(calibration) // 4] if name in FEWER else calibration
            method = parse_method(written)
            recipe = fitted(name, written, model, fewer, options.records.parent / "recipes")
            predict(name, method, recipe, model, language, records, expected)
            if name in arms and not options.language:
                generators[name] = stack.enter_context(applied(method, shared_copy(model), recipe))
        measure(generators, asked if generators else [], records, model.config, tokenizer)
    records.leave_out(item for item in asked if not all(records.has(name, item) for name in arms))
    asked = [item for item in asked if records.has(BASELINE, item)]
    parts = [part for part in size.asked if any(item.part == part for item in asked)]
    table = table_of(records, [*arms, *lesser], parts)
    for line in table:
        print(json.dumps(line), flush=True)
    rival = llama_cpp(options.llama_cpp, next((options.home / "packaged" / "smollm2-135m").glob("*.gguf")))
    rows = rows_of(records, [*arms, *lesser], parts)
    apart = math.exp(abs(math.log(ours / theirs)))
    check = Row(
        "language", "dense", "transformers", "perplexity, float32", apart, apart, apart, size.checked, None, True
    )
    details = running(
        model=MODEL, threads=options.threads, dtype="bfloat16", calibrated=len(ids), windows=len(language),
        asked={part: sum(item.part == part for item in asked) for part in parts}, table=table, llama_cpp=rival,
        prompts=options.prompts is not None, notes=notes,
    )  # fmt: skip
    return conclude(Report("sparsity_real", details, [check, *rows], LIMITS), options)


def main() -> int:
    """Run the benchmark."""
    parser = arguments(__doc__ or "", "two short windows, five questions, six arms with shipped recipes")
    parser.add_argument("--home", type=Path, default=Path(".vivace"), help="where `vivace models get` put the model")
    parser.add_argument("--prompts", type=Path, help="a folder with qa, gsm8k and sum as EAGLE's .jsonl files")
    parser.add_argument(
        "--records", type=Path, default=Path("benchmarks/.cache/sparsity_real/records.jsonl"),
        help="what was measured so far; the same command goes on there",
    )  # fmt: skip
    parser.add_argument("--arms", help="some arms alone, by their names, with ; between them")
    parser.add_argument("--windows", type=int, default=Size().windows, help="of articles, that are predicted")
    parser.add_argument("--language", action="store_true", help="perplexity and KL alone, without any answers")
    parser.add_argument("--ablation", action="store_true", help="further arms, whose predictions alone are measured")
    parser.add_argument("--searched", action="store_true", help="R-Sparse with searched ratios too, a fit of hours")
    parser.add_argument("--threads", type=int, default=2, help="of the processor")
    parser.add_argument("--llama-cpp", type=Path, metavar="PYTHON", help="a Python that has llama-cpp-python")
    return finished(benchmark, parser.parse_args(), MethodError, UsageError)


if __name__ == "__main__":
    sys.exit(main())
