"""The CUDA form of the op, under Triton's interpreter, gives what the CPU form gives; and it compiles."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.plugin.steering_case import ALONE, DEAD, SUM, Case, Slot, make_case, run, run_counting
from trimtab.plugin.model.op import COSINE, EUCLIDEAN
from trimtab.plugin.steps.batch import ALPHA, SLOT

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]


def strided(case: Case) -> Case:
    """The stream as a slice of wider rows, as a fused projection leaves it."""
    assert case.residual is not None
    wide = torch.cat([case.hidden, case.residual], dim=1)
    size = case.hidden.shape[1]
    return replace(case, hidden=wide[:, :size], residual=wide[:, size:])


def not_finite(case: Case) -> Case:
    """All tokens have the first profile, the first an infinite entry that only its last centroid points to."""
    hidden, rows, tokens = torch.zeros_like(case.hidden), case.rows.clone(), torch.zeros_like(case.tokens)
    tokens[:, SLOT, 0] = 1
    tokens[:, ALPHA, 0] = case.tokens[:, ALPHA, 0]
    hidden[0, 0] = torch.inf
    first, count, _ = case.slots[1].tolist()
    rows[first : first + count, 0] = -1.0
    rows[first + count - 1, 0] = 1.0
    bias = rows.double().square().sum(dim=1) / 2
    return replace(case, hidden=hidden, rows=rows, bias=bias, tokens=tokens)


def overflowing(case: Case) -> Case:
    """The first two tokens' additions leave float16."""
    alphas = case.tokens[:, ALPHA].contiguous().view(torch.float32)
    alphas[:2] *= 1e6
    tokens = case.tokens.clone()
    tokens[:, ALPHA] = alphas.view(torch.int32)
    return replace(case, tokens=tokens)


def case(seed: int, tokens: int, size: int, *slots: Slot, dtype: torch.dtype = torch.float32, form: str = SUM) -> Case:
    return make_case(seed, tokens=tokens, size=size, slots=slots, dtype=dtype, form=form)


CASES = {
    f"K of {k}, {str(dtype).removeprefix('torch.')}": case(k, 6, 24, Slot(k), Slot(), Slot(None), dtype=dtype)
    for k in (1, 2, 7, 9, 64, 65, 256)
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
} | {
    "more concepts than are scored": case(14, 2, 24, Slot(257)),
    "wider than a tile": case(1, 4, 700, Slot(3), Slot(9, EUCLIDEAN, (2600.0, 2400.0)), dtype=torch.bfloat16),
    "a width of one": case(2, 4, 1, Slot(3)),
    "many ties": case(3, 12, 2, Slot(40), Slot(17)),
    "limits": case(
        *(4, 16, 3),
        *(Slot(4, EUCLIDEAN, (1.5, 4.0, math.inf)), Slot(5, COSINE, (0.3, 0.0, 2.0))),
        *(Slot(3, COSINE, (1.0,)), Slot(2, EUCLIDEAN)),
    ),
    "zero vectors": case(5, 16, 1, Slot(3, COSINE, (2.0, math.inf)), Slot(1, COSINE, (0.0,))),
    "one token": case(6, 1, 8, Slot(3)),
    "no token": case(7, 0, 8, Slot(3)),
    "nobody steered": case(8, 4, 8),
    "all four coarse": case(9, 8, 24, Slot(), dtype=torch.float16),
    "too large": overflowing(case(11, 6, 700, Slot(), Slot(), Slot(5), dtype=torch.float16)),
    "too large, at a later layer": replace(
        overflowing(case(12, 6, 8, Slot(), Slot(3), dtype=torch.float16)), opens=False
    ),
    **{
        f"{form}, {str(dtype).removeprefix('torch.')}": case(
            13, 6, 24, Slot(9), Slot(2, COSINE), dtype=dtype, form=form
        )
        for form in (ALONE, DEAD)
        for dtype in (torch.float32, torch.bfloat16)
    },
    "strided": strided(case(10, 6, 24, Slot(9), Slot(), dtype=torch.bfloat16)),
}


def child(*arguments: str, **environment: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "tests.plugin.triton_child", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr


SCORED = ("as few tokens", "as many")
Counted = tuple[torch.Tensor, ...]
"""An answer, and `counts` afterwards."""
Interpreted = dict[tuple[str, str], Counted]
"""By the name of the case, and how its tokens are scored."""


def interpret(folder: Path, cases: Mapping[str, Case]) -> Interpreted:
    """What the kernels answer, under Triton's interpreter."""
    torch.save([(case.tensors(), case.opens) for case in cases.values()], folder / "given.pt")
    child("answer", str(folder / "given.pt"), str(folder / "answered.pt"), TRITON_INTERPRET="1")
    return dict(zip(itertools.product(cases, SCORED), torch.load(folder / "answered.pt"), strict=True))


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> Interpreted:
    cases = {**CASES, "not finite": not_finite(CASES["K of 9, float32"])}
    return interpret(tmp_path_factory.mktemp("kernel"), cases)


def on_the_cpu(case: Case) -> Counted:
    """The CPU's answer; where a GPU and the CPU round to bfloat16, the interpreter cuts off the lower half."""
    if case.hidden.dtype != torch.bfloat16:
        answer, counts = run_counting(case)
        return (*answer, counts)
    (exact, decided, lost), counts = run_counting(case.widened())
    return (exact.contiguous().view(torch.int32) & ~0xFFFF).view(torch.float32).bfloat16(), decided, lost, counts


@pytest.mark.parametrize("scored", SCORED)
@pytest.mark.parametrize("name", CASES)
def test_the_kernels_agree_with_the_cpu(name: str, scored: str, interpreted: Interpreted) -> None:
    assert interpreted[name, scored][0].dtype == CASES[name].hidden.dtype
    for kernels, cpus in zip(interpreted[name, scored], on_the_cpu(CASES[name]), strict=True):
        assert torch.equal(kernels, cpus)


@pytest.mark.parametrize("scored", SCORED)
def test_an_infinite_stream_still_gets_a_row_of_its_own_profile(scored: str, interpreted: Interpreted) -> None:
    case = not_finite(CASES["K of 9, float32"])
    first, count, _ = case.slots[1].tolist()
    alpha = case.tokens[0, ALPHA].contiguous().view(torch.float32)[0]
    assert torch.equal(interpreted["not finite", scored][0][0], alpha * case.rows[first + 2 * count - 1])
    assert torch.equal(interpreted["not finite", scored][0], run(case)[0])


def test_the_kernels_compile_for_cuda() -> None:
    child("build", TRITON_INTERPRET="0")
