"""The CUDA form of the op, under Triton's interpreter, gives what the CPU form gives; and it compiles."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.plugin.steering_case import Case, make_case
from trimtab.plugin.op import steer

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]


def strided(case: Case) -> Case:
    """The stream as a slice of wider rows, as a fused projection leaves it."""
    wide = torch.cat([case.hidden, case.residual], dim=1)
    size = case.hidden.shape[1]
    return replace(case, hidden=wide[:, :size], residual=wide[:, size:])


def not_finite(case: Case) -> Case:
    """All tokens have the first profile, the first an infinite entry that only the last centroid points to."""
    hidden, centroids = torch.zeros_like(case.hidden), case.centroids.clone()
    hidden[0, 0] = torch.inf
    centroids[:, 0] = -1.0
    centroids[int(case.count[1]), 0] = 1.0
    return replace(case, hidden=hidden, centroids=centroids, token_slot=torch.ones_like(case.token_slot))


CASES = {
    f"K of {k}, {str(dtype).removeprefix('torch.')}": make_case(k, tokens=6, size=24, counts=[k, 1, 0], dtype=dtype)
    for k in (1, 2, 7, 8, 9, 64)
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
} | {
    "wider than a tile": make_case(1, tokens=4, size=700, counts=[3, 9], dtype=torch.bfloat16),
    "a width of one": make_case(2, tokens=4, size=1, counts=[3], dtype=torch.float32),
    "many ties": make_case(3, tokens=12, size=2, counts=[40, 17], dtype=torch.float32),
    "one token": make_case(4, tokens=1, size=8, counts=[3], dtype=torch.float32),
    "no token": make_case(5, tokens=0, size=8, counts=[3], dtype=torch.float32),
    "nobody steered": make_case(6, tokens=4, size=8, counts=[], dtype=torch.float32),
    "strided": strided(make_case(7, tokens=6, size=24, counts=[9, 1], dtype=torch.bfloat16)),
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


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The kernel's delta by the name of the case."""
    folder = tmp_path_factory.mktemp("kernel")
    cases = {**CASES, "not finite": not_finite(CASES["K of 9, float32"])}
    torch.save([case.tensors() for case in cases.values()], folder / "given.pt")
    child("answer", str(folder / "given.pt"), str(folder / "answered.pt"), TRITON_INTERPRET="1")
    return dict(zip(cases, torch.load(folder / "answered.pt"), strict=True))


def on_the_cpu(case: Case) -> torch.Tensor:
    """The CPU's delta; where a GPU and the CPU round to bfloat16, the interpreter cuts off the lower half."""
    if case.residual.dtype != torch.bfloat16:
        return steer(*case.tensors())
    exact = steer(*replace(case, hidden=case.hidden.float(), residual=case.residual.float()).tensors())
    return (exact.contiguous().view(torch.int32) & ~0xFFFF).view(torch.float32).bfloat16()


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_agrees_with_the_cpu(name: str, interpreted: dict[str, torch.Tensor]) -> None:
    delta = interpreted[name]
    assert delta.dtype == CASES[name].residual.dtype
    assert torch.equal(delta, on_the_cpu(CASES[name]))


def test_an_infinite_stream_still_gets_a_row_of_its_own_profile(interpreted: dict[str, torch.Tensor]) -> None:
    case = not_finite(CASES["K of 9, float32"])
    assert torch.equal(interpreted["not finite"][0], case.token_alpha[0] * case.vectors[9])
    assert torch.equal(interpreted["not finite"], steer(*case.tensors()))


def test_the_kernel_compiles_for_cuda() -> None:
    child("build", TRITON_INTERPRET="0")
