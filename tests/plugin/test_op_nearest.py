"""Both forms of the op choose as `trimtab.vectors.nearest` does, at the width of a 7B model and with much in common.

The CUDA form runs under Triton's interpreter, in a process of its own.
"""

from __future__ import annotations

import typing

import numpy as np
import pytest
import torch

from tests.plugin.steering_case import PARTS, Case, run
from tests.plugin.test_op_triton import SCORED, Interpreted, interpret
from tests.vectors.large_common_parts import SIZE, Data, exact, kinds
from trimtab.plugin.model.op import COSINE, EUCLIDEAN
from trimtab.plugin.steps.batch import ALPHA, DECISION, SLOT
from trimtab.vectors.nearest import Metric, distances, half_squares

ROWS = 12
INTERPRETED = 6  # rows; the interpreter takes a fifth of a second for each
KINDS = {name: Data(h[:ROWS], centroids) for name, (h, centroids) in kinds()}


def deciding(data: Data, metric: int = 0, limit: float = 0.0) -> Case:
    """Every row of h decides once, at the place of its number + 1; a profile of another lies before."""
    h, centroids = data
    n, k = len(h), len(centroids)
    first = 3
    tokens = torch.zeros(n, 3, PARTS, dtype=torch.int32)
    tokens[:, SLOT, 0] = 1
    tokens[:, ALPHA, 0] = int(np.float32(1).view(np.int32))
    tokens[:, DECISION, 0] = -torch.arange(1, n + 1)
    rows = torch.zeros(first + 2 * k, SIZE)
    rows[first : first + k] = torch.from_numpy(centroids)
    bias = torch.zeros(len(rows), dtype=torch.float64)
    bias[first : first + k] = torch.from_numpy(half_squares(centroids))
    return Case(
        hidden=torch.zeros(n, SIZE),
        residual=torch.from_numpy(h),
        summed=torch.ones(1, dtype=torch.uint8),
        tokens=tokens,
        slots=torch.tensor([[0, 0, 0], [first, k, metric]], dtype=torch.int32),
        limits=torch.full((len(rows),), limit, dtype=torch.float64),
        bias=bias,
        rows=rows,
        decided=torch.full((n + 1,), 99, dtype=torch.int32),
        lost=torch.zeros(n, dtype=torch.uint8),
        counts=torch.zeros(2, len(rows), dtype=torch.int64),
    )


def few(data: Data) -> Data:
    return Data(data.h[:INTERPRETED], data.centroids)


def choices(case: Case, answer: tuple[torch.Tensor, ...]) -> list[int]:
    first, count, _ = case.slots[1].tolist()
    chosen: list[int] = (answer[1][1:] - first - count).tolist()
    return chosen


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> Interpreted:
    return interpret(tmp_path_factory.mktemp("kernel"), {kind: deciding(few(data)) for kind, data in KINDS.items()})


@pytest.mark.parametrize("kind", KINDS)
def test_the_cpu_makes_no_choice_but_the_exact_one(kind: str) -> None:
    case = deciding(KINDS[kind])
    assert choices(case, run(case)) == exact(*KINDS[kind])[0].tolist()


@pytest.mark.parametrize("scored", SCORED)
@pytest.mark.parametrize("kind", KINDS)
def test_the_kernels_make_no_choice_but_the_exact_one(kind: str, scored: str, interpreted: Interpreted) -> None:
    data = few(KINDS[kind])
    assert choices(deciding(data), interpreted[kind, scored]) == exact(*data)[0].tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", typing.get_args(Metric))
def test_a_limit_is_measured_from_the_centroid_itself(kind: str, metric: Metric) -> None:
    h, centroids = KINDS[kind]
    chosen = exact(h, centroids)[0]
    apart = distances(h, centroids[chosen], metric)
    limit = float(np.sort(apart)[ROWS // 2 : ROWS // 2 + 2].mean())
    case = deciding(KINDS[kind], COSINE if metric == "cosine" else EUCLIDEAN, limit if metric == "cosine" else limit**2)
    inside = np.array(run(case)[1][1:]) >= 0
    assert inside.tolist() == (apart <= limit).tolist()
    assert 0 < inside.sum() < ROWS
