"""`python -m vivace_methods`: the methods on a machine that has torch and transformers and nothing else of Vivace."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vivace_methods.documentation import documentation_of
from vivace_methods.models.loading import available_device, load_model
from vivace_methods.models.random import random_model, real_configuration, tiny_configuration
from vivace_methods.models.shapes import REAL_SHAPES, TINY_SHAPES
from vivace_methods.protocol import MethodError, Need, Request
from vivace_methods.registry import METHODS, method_class, parse_arm, parse_method
from vivace_methods.sparsity.fitting.about import About
from vivace_methods.timing.process.memory import peak_bytes

WINDOW = 512
"""Tokens of one calibration text."""
DTYPES = ("float32", "bfloat16", "float16")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says, and give the exit code: 0, or 2 for what cannot be done as asked."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except MethodError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vivace_methods",
        description="Inference methods on transformers models.",
        epilog=f"methods: {', '.join(METHODS)}",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    verbs.add_parser("list", help="all methods, a line each").set_defaults(run=_list)
    show = verbs.add_parser("show", help="one method: purpose, source, settings with their defaults")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=_show)
    generate = verbs.add_parser("generate", help="answer one prompt, and print the result as JSON")
    _add_generate(generate)
    generate.set_defaults(run=_generate)
    fit = verbs.add_parser("fit", help="fit a method that needs a recipe to a model, and write the recipe")
    _add_fit(fit)
    fit.set_defaults(run=_fit)
    return parser


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--method",
        required=True,
        metavar="NAME",
        help="'full(attention=eager)', 'eagle-3(depth=3):FOLDER'",
    )
    _add_model(parser)
    parser.add_argument(
        "--prompt-tokens", type=_ids, required=True, metavar="1,2,3", help="- reads them from standard input"
    )
    parser.add_argument("--end-tokens", type=_ids, default=[], metavar="2", help="ids that end the answer")
    parser.add_argument("--most-tokens", type=int, required=True, metavar="N")


def _add_fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--method", required=True, metavar="NAME", help="'r-sparse(sparsity=0.4)'")
    _add_model(parser)
    parser.add_argument(
        "--calibration",
        type=Path,
        required=True,
        metavar="FILE",
        help="UTF-8 text; for a random model, ids with blanks between",
    )
    parser.add_argument("--tokens", type=int, default=8192, metavar="N", help="of the calibration")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for the recipe")


def _add_model(parser: argparse.ArgumentParser) -> None:
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", type=Path, metavar="FOLDER", help="config.json and safetensors")
    model.add_argument("--random", metavar="KIND", help=f"a tiny random model: {', '.join(TINY_SHAPES)}")
    model.add_argument("--like", metavar="NAME", help=f"a random model of real shapes: {', '.join(REAL_SHAPES)}")
    parser.add_argument("--layers", type=int, help="with --like: fewer layers than the model has")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0, help="of random weights")
    parser.add_argument("--threads", type=int, help="of the processor")


def _ids(text: str) -> list[int]:
    written = sys.stdin.readline() if text == "-" else text  # a long prompt is no argument that a system takes
    try:
        return [int(part) for part in written.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no list of token ids like 1,2,3") from None


def _list(options: argparse.Namespace) -> None:
    for name, kind in METHODS.items():
        print(f"{name:16}{kind.family:14}{documentation_of(kind).summary}")


def _show(options: argparse.Namespace) -> None:
    kind = method_class(options.name)
    said = documentation_of(kind)
    print("\n\n".join((f"{kind.name} ({kind.family})", said.summary, *said.paragraphs, f"Paper: {kind.paper}")))
    print(f"Needs: {', '.join(kind.needs) or 'nothing but a model'}")
    for setting in said.settings:
        print(f"Setting {setting.name}={setting.default}: {setting.kind}. {setting.meaning}")


def _generate(options: argparse.Namespace) -> None:
    chosen = parse_arm(options.method)
    if options.most_tokens < 1:
        raise MethodError("--most-tokens must be at least 1.")
    model = _model(options)
    _require_known(options.prompt_tokens, model.config.vocab_size)
    prompt = torch.tensor([options.prompt_tokens], device=model.device)
    tokens: list[int] = []
    with chosen.apply(model) as generator:
        request = Request(prompt, options.most_tokens, frozenset(options.end_tokens))
        trace = generator.generate(request, tokens.extend)
    answer = {"method": chosen.label, "tokens": tokens, "figures": trace.figures, "peak_bytes": peak_bytes()}
    print(json.dumps(answer))


def _fit(options: argparse.Namespace) -> None:
    method = parse_method(options.method)
    if Need.RECIPE not in method.needs:
        raise MethodError(f"{method.name} needs no recipe: there is nothing to fit.")
    model = _model(options)
    ids = _calibration(options)
    _require_known(ids, model.config.vocab_size)
    texts = [torch.tensor([ids[first : first + WINDOW]]) for first in range(0, len(ids) - 1, WINDOW)]
    journal = options.output / "search.jsonl"
    about = About(calibration=options.calibration.name, on_step=_say, journal=journal)
    recipe = method.fit(model, texts, about)  # type: ignore[call-arg]  # those that need a recipe take it
    recipe.save(options.output)
    journal.unlink(missing_ok=True)
    print(f"{method.label}:{options.output}")


def _calibration(options: argparse.Namespace) -> list[int]:
    try:
        text = options.calibration.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MethodError(f"The calibration text {options.calibration} cannot be read as UTF-8: {error}.") from error
    if options.model is None:
        try:
            return [int(part) for part in text.split()][: options.tokens]
        except ValueError as error:
            raise MethodError("A random model has no tokenizer: calibrate it on ids with blanks between.") from error
    try:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(options.model, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise MethodError(f"There is no tokenizer in {options.model} that transformers can read.") from error
    return list(tokenizer(text)["input_ids"][: options.tokens])


def _say(done: int, steps: int) -> None:
    print(f"\r{done} of {steps} steps", end="\n" if done == steps else "", file=sys.stderr, flush=True)


def _model(options: argparse.Namespace) -> Any:
    if options.layers is not None and options.like is None:
        raise MethodError("--layers goes with --like; other models keep their layers.")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device, dtype = available_device(options.device), getattr(torch, options.dtype)
    if options.model is not None:
        return load_model(options.model, dtype=dtype, device=options.device)
    if options.random is not None:
        configuration = tiny_configuration(options.random)
    else:
        configuration = real_configuration(options.like, layers=options.layers)
    return random_model(configuration, dtype=dtype, device=device, seed=options.seed)


def _require_known(tokens: Sequence[int], vocabulary: int) -> None:
    unknown = [token for token in tokens if not 0 <= token < vocabulary]
    if unknown:
        raise MethodError(f"The model has token ids from 0 to {vocabulary - 1}, and {unknown[0]} is none of them.")


if __name__ == "__main__":
    sys.exit(main())
