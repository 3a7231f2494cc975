"""Verifying drafts on a mixture of experts under budgets: passes here, and quality on the zoo's model end to end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from report import Report, Row, arguments, conclude, finished, running
from verifying import quality
from verifying.passes import Shape, break_even, print_break_even, rows_of, timed_passes

from vivace_methods.timing.floor import FloorProbe

LIMITS = {(f"verify {tokens} tokens, B=16", "pass_s"): 1 / 1.3 for tokens in Shape().tokens}
SHARES = {8: 4, 16: 8, 32: 16}
"""Budget of the stack's 64 experts → the same part of the zoo's 32."""


def timed(options: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """The passes of all types of number."""
    dtypes = [torch.float32] if options.quick else [torch.float32, torch.bfloat16]
    probe = FloorProbe(torch.device("cpu"), dtypes=dtypes)
    probe.again()
    rows, passes = [], []
    for dtype in dtypes:
        print(f"verifying in {dtype}", file=sys.stderr)
        found = timed_passes(Shape(), dtype, 6 if options.quick else 25, rivals=not options.quick, probe=probe)
        rows += rows_of(found)
        passes += break_even(found)
        del found
    return rows, passes


def benchmark(options: argparse.Namespace) -> int:
    """Everything."""
    torch.set_num_threads(options.threads)
    rows, passes = ([], []) if options.quality_alone else timed(options)
    size = quality.QUICK if options.quick else quality.FULL
    if options.asked is not None:
        size = replace(size, asked=options.asked)
    print("answering on the zoo's model", file=sys.stderr)
    found = quality.measured(size, options.record)
    figures = quality.figures_of(found)
    rows += quality.rows_of(found)
    rows.sort(key=lambda row: not row.headline)
    estimate = quality.joined(passes, figures, SHARES)
    work = {**asdict(Shape()), "threads": options.threads, "quality": asdict(size)}
    plan = [] if found.plan is None else found.plan.sentences
    details = running(work=work, passes=passes, figures=figures, estimate=estimate, plan=plan)
    code = conclude(Report("speculation", details, rows, LIMITS), options)
    print_break_even(passes)
    quality.print_figures(figures)
    quality.print_joined(estimate)
    if options.table:
        print(f"\n{quality.honest_table(figures)}")
    for sentence in plan:
        print(sentence)
    return code


def main(given: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = arguments(__doc__ or "", "passes in float32 alone, few turns, and few prompts")
    parser.add_argument("--threads", type=int, default=1, help="of the processor; one, unless said otherwise")
    parser.add_argument("--record", type=Path, metavar="FILE", help="keep answers there, and go on with those in it")
    parser.add_argument("--asked", type=int, metavar="N", help="prompts of each task that are answered")
    parser.add_argument("--table", action="store_true", help="what each form beats and costs, as Markdown")
    parser.add_argument("--quality-alone", action="store_true", help="leave the passes out")
    return finished(benchmark, parser.parse_args(given))


if __name__ == "__main__":
    sys.exit(main())
