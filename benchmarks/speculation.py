"""Verifying drafts on a mixture of experts, with and without a budget: passes on this processor."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

import torch
from report import Report, arguments, conclude, finished, running
from speculation_passes import Shape, break_even, print_break_even, rows_of, timed_passes

from vivace_methods.timing.floor import FloorProbe

LIMITS = {(f"verify {tokens} tokens, B=16", "pass_s"): 1 / 1.3 for tokens in Shape().tokens}


def benchmark(options: argparse.Namespace) -> int:
    """Everything."""
    torch.set_num_threads(options.threads)
    dtypes = [torch.float32] if options.quick else [torch.float32, torch.bfloat16]
    probe = FloorProbe(torch.device("cpu"), dtypes=dtypes)
    probe.again()
    rows, passes = [], []
    for dtype in dtypes:
        print(f"verifying in {dtype}", file=sys.stderr)
        timed = timed_passes(Shape(), dtype, 6 if options.quick else 25, rivals=not options.quick, probe=probe)
        rows += rows_of(timed)
        passes += break_even(timed)
        del timed
    rows.sort(key=lambda row: not row.headline)
    work = {**asdict(Shape()), "threads": options.threads}
    code = conclude(Report("speculation", running(work=work, passes=passes), rows, LIMITS), options)
    print_break_even(passes)
    return code


def main() -> int:
    """Run the benchmark."""
    parser = arguments(__doc__ or "", "passes in float32 alone, and few turns")
    parser.add_argument("--threads", type=int, default=1, help="of the processor; one, unless said otherwise")
    return finished(benchmark, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
