"""Forms of the sparse product beside each other: what is counted of instructions, and what a compiler refuses."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("triton")
import kernel_forms
from devices.assembling import Assembled
from kernel_forms import (
    AS_IT_IS,
    FORMS,
    Form,
    Found,
    barriers_of,
    compiled,
    found_of,
    imbalance,
    main,
    most_loads,
    rows_of,
    table,
)

RING = """
$L__BB0_1:
	bar.sync 	0;
	@%p1 bar.sync 	0;
	atom.global.gpu.acq_rel.add.u64 	%rd1, [ %rd2 + 0 ], %rd3;
	ld.global.L1::evict_first.L2::cache_hint.v4.b32 { %r1 }, [ %rd1 + 0 ];
	@%p1 cp.async.ca.shared.global [ %r1 + 0 ], [ %rd1 + 0 ], 0x4;
	cp.async.commit_group;
	cp.async.cg.shared.global.L2::cache_hint [ %r1 + 0 ], [ %rd1 + 0 ], 0x10;
	cp.async.cg.shared.global.L2::cache_hint [ %r1 + 0 ], [ %rd1 + 0 ], 0x10;
	cp.async.commit_group;
	cp.async.cg.shared.global.L2::cache_hint [ %r1 + 0 ], [ %rd1 + 0 ], 0x10;
	cp.async.cg.shared.global.L2::cache_hint [ %r1 + 0 ], [ %rd1 + 0 ], 0x10;
	cp.async.commit_group;
$L__BB0_2:
	cp.async.wait_group 	1;
	cp.async.cg.shared.global.L2::cache_hint [ %r1 + 0 ], [ %rd1 + 0 ], 0x10;
	cp.async.cg.shared.global.L2::cache_hint [ %r1 + 0 ], [ %rd1 + 0 ], 0x10;
	cp.async.commit_group;
	@%p1 bra 	$L__BB0_2;
"""


def kernel(instructions: str, registers: int = 128, shared: int = 24_960) -> Assembled:
    """A program of 128 threads."""
    return Assembled("_multiply", 128, registers, 0, shared, instructions)


def test_what_is_on_its_way_is_all_of_a_ring_but_what_is_added_up() -> None:
    found = found_of("a ring of three stages", 90, [kernel("bar.sync 0;", 40, 0), kernel(RING)])
    assert (found.launches, found.barriers, found.atomics, found.copies) == (2, 3, 1, 6)
    assert found.programs == 4 and found.in_flight_bytes == 4 * 4 * 16 * 128
    after = kernel(
        RING.replace("wait_group 	1;", "wait_group 	1;\n	bar.sync 	0;") + "	bar.sync 	0;\n"
    )
    assert barriers_of(after) == (1, 1) and after.barriers == 4


def test_without_a_ring_it_is_what_is_asked_for_between_two_jumps() -> None:
    load = "	ld.global.L1::evict_first.L2::cache_hint.v4.b32 { %r1 }, [ %rd1 + 0 ];\n"
    plain = kernel(f"$L__BB0_1:\n{3 * load}$L__BB0_2:\n{2 * load}	ld.global.b32 	%r1, [ %rd1 + 0 ];\n")
    assert most_loads(plain) == 3
    joined = kernel(plain.instructions.replace("$L__BB0_2:", "$L__BB0_2:\n	bar.sync 	0;"))
    assert barriers_of(joined) == (0, 1)
    assert found_of("one stage", 80, [plain]).in_flight_bytes == 4 * 3 * 16 * 128


@pytest.mark.parametrize(
    ("registers", "shared", "programs"), [(128, 0, 4), (129, 0, 3), (32, 0, 16), (32, 24_960, 6), (16, 16_384, 9)]
)
def test_as_many_programs_share_a_processor_as_registers_memory_and_threads_allow(
    registers: int, shared: int, programs: int
) -> None:
    assert kernel("", registers, shared).programs(163 * 1024) == programs


def test_a_form_that_the_compiler_refuses_says_why_and_the_module_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = dict(kernel_forms.module.LAUNCHING), kernel_forms.module.STAGES

    def refuse(*_: Any) -> Any:
        assert kernel_forms.module.STAGES == 9 and "maxnreg" not in kernel_forms.module.LAUNCHING
        raise RuntimeError("no\n  such layout")

    monkeypatch.setattr(kernel_forms, "assembled", refuse)
    monkeypatch.setattr(kernel_forms, "packed_of", lambda form: None)
    found = compiled(Form("other", {"STAGES": 9}, {"maxnreg": None}), 90)
    assert found.refused == "RuntimeError: no such layout"
    assert (dict(kernel_forms.module.LAUNCHING), kernel_forms.module.STAGES) == before
    usual = Found(AS_IT_IS, 90, 1, 127, 0, 24_960, 80, 1, 9, 3, 16, 4, 98_304)
    lines = list(table([usual, found]))
    assert "| 96 KiB |" in lines[2] and "refused: RuntimeError" in lines[3]
    assert len({line.count("|") for line in lines}) == 1
    assert list(rows_of([usual, found])) == []
    older = Found("before", 90, 2, 128, 0, 0, 40, 1, 9, 2, 0, 4, 65_536)
    assert {row.metric: row.ratio for row in rows_of([usual, older])}["launches"] == 2


def test_parts_that_are_cut_before_they_are_counted_are_unequal() -> None:
    assert imbalance(1, draws=50) == 1 and 1.1 < imbalance(22, draws=200) < 1.2


def test_a_revision_that_is_not_here_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--before", "no-such-revision"]) == 1
    assert "There is no revision no-such-revision here" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.full
def test_every_form_compiles_without_spilling_or_is_refused() -> None:
    found = [compiled(form, 90) for form in FORMS]
    taken = ("as it is", "one limit for each layer", "two tokens", "levels of eight bits", "float16", "float32")
    assert all(each.spilled == 0 and not each.refused for each in found if each.form in taken)
    assert not found[0].refused and found[0].launches == 1
