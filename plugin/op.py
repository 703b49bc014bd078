"""The addition: delta = Σ_i alpha_i · v_i(h), v_i(h) the row of profile i's nearest centroid (DESIGN, "The op").

    score_k = h·c_k − ½‖c_k‖²      h = hidden + residual in float32; the lowest index wins a tie

A custom op, so that torch.compile and CUDA graphs see one opaque node whose shape depends on nothing but its input's.
Its only side effect is on `decided`, where a gate that decides once for a whole answer leaves its choice. A coarse
profile has one row, which is never scored. Rows are grouped by profile; [T, K, D] is never built. The CPU form looks at
active rows alone; the CUDA form is the kernel in `op_triton`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from .batch import ALPHA, DECISION, SLOT

__all__ = ["COSINE", "COUNT", "EUCLIDEAN", "FIRST", "LIMIT", "NOT_HERE", "steer"]

# Fields of a slot. FIRST: its first row, or NOT_HERE. COUNT: 0 for a coarse profile, whose row is FIRST; K for a fine
# one, with centroids at FIRST and vectors at FIRST + K. LIMIT: which distance is limited, 0 for none.
FIRST, COUNT, LIMIT = range(3)
NOT_HERE = -1  # in place of a row, wherever one is named: nothing is added
EUCLIDEAN, COSINE = 1, 2

_LIBRARY = torch.library.Library("trimtab", "DEF")
_LIBRARY.define(
    "steer(Tensor hidden, Tensor residual, Tensor tokens, Tensor slots, Tensor limits, Tensor bias, Tensor rows, "
    "Tensor(a!) decided) -> Tensor"
)


def steer(
    hidden: torch.Tensor,
    residual: torch.Tensor,
    tokens: torch.Tensor,
    slots: torch.Tensor,
    limits: torch.Tensor,
    bias: torch.Tensor,
    rows: torch.Tensor,
    decided: torch.Tensor,
) -> torch.Tensor:
    """What to add to `residual`.

    Args:
        hidden, residual: [T, D], the two parts of the stream after a decoder layer, any float dtype.
        tokens: int32 [≥ T, 3, P], slot, strength and decision of each token's parts, see `batch.token_rows`.
        slots: int32 [S, 3], see FIRST, COUNT and LIMIT. Slot 0 is unsteered.
        limits: float32 [S], the largest distance (inclusive) at which a fine profile adds; squared if Euclidean.
        bias: float32 [R], ½‖c‖² of rows that are centroids. rows: float32 [R, D].
        decided: int32 [P′], rows that gates chose for whole answers; read and written here.

    Returns:
        [T, D] in the dtype of `residual`: accumulated in float32, cast once.
    """
    delta: torch.Tensor = torch.ops.trimtab.steer(hidden, residual, tokens, slots, limits, bias, rows, decided)
    return delta


@torch.library.impl(_LIBRARY, "steer", "CPU")
def _steer_cpu(
    hidden: torch.Tensor,
    residual: torch.Tensor,
    tokens: torch.Tensor,
    slots: torch.Tensor,
    limits: torch.Tensor,
    bias: torch.Tensor,
    rows: torch.Tensor,
    decided: torch.Tensor,
) -> torch.Tensor:
    # The indices are host memory here: numpy reads them without a torch call for each, of which a step affords few.
    of_token = tokens.numpy()[: len(residual)]
    token, part = of_token[:, SLOT].nonzero()
    if not len(token):
        return torch.zeros_like(residual)
    slot = of_token[token, SLOT, part]
    row = slots.numpy()[slot, FIRST]
    whole = len(token) == len(residual) and not part.any()  # one part a token, in their order
    if slots.numpy()[slot, COUNT].any():
        decision = of_token[token, DECISION, part]
        _through_gates(row, token, slot, decision, whole, hidden, residual, slots, limits, bias, rows, decided)
    adds = row != NOT_HERE
    if not adds.all():
        token, part, row, whole = token[adds], part[adds], row[adds], False
    strength = torch.from_numpy(of_token[token, ALPHA, part].view(np.float32))
    added = rows.index_select(0, torch.from_numpy(row)).mul_(strength[:, None])
    if whole:
        return added.to(residual.dtype)
    # One after the other, in the order of the parts, whoever shares the batch.
    delta = torch.zeros(residual.shape, dtype=torch.float32).index_add_(0, torch.from_numpy(token), added)
    return delta.to(residual.dtype)


def _through_gates(
    row: npt.NDArray[np.int32],
    token: npt.NDArray[np.intp],
    slot: npt.NDArray[np.int32],
    decision: npt.NDArray[np.int32],
    whole: bool,
    hidden: torch.Tensor,
    residual: torch.Tensor,
    slots: torch.Tensor,
    limits: torch.Tensor,
    bias: torch.Tensor,
    rows: torch.Tensor,
    decided: torch.Tensor,
) -> None:
    """Replace the first row of a fine profile in `row` [N] by the row that its gate chooses for the token."""
    described = slots.numpy()
    asks = described[slot, COUNT] > 0
    reads = decision > 0
    if reads.any():
        row[reads] = decided.numpy()[decision[reads]]
        asks &= ~reads
    asking = np.flatnonzero(asks)
    if whole and len(asking) == len(token):
        h = hidden.float() + residual.float()
    else:
        at = torch.from_numpy(token[asking])
        h = hidden[at].float() + residual[at].float()
    slot = slot[asking]
    for one in np.flatnonzero(np.bincount(slot)).tolist():
        first, count, limit = described[one].tolist()
        mine = np.flatnonzero(slot == one)
        stream = h if len(mine) == len(slot) else h[torch.from_numpy(mine)]
        centroids = rows[first : first + count]
        score = torch.addmm(bias[first : first + count], stream, centroids.T, beta=-1)
        nearest = score.numpy().argmax(axis=1)
        chosen = nearest + (first + count)
        if limit:
            distance = _distance(stream, centroids[torch.from_numpy(nearest)], cosine=limit == COSINE)
            chosen[~(distance <= limits[one]).numpy()] = NOT_HERE
        row[asking[mine]] = chosen
    if (makes := decision < 0).any():
        decided.numpy()[-decision[makes]] = row[makes]


def _distance(stream: torch.Tensor, centroids: torch.Tensor, *, cosine: bool) -> torch.Tensor:
    """[N], squared if Euclidean. NaN, which is inside no limit, for the cosine of a zero vector."""
    if cosine:
        norms = stream.square().sum(dim=1) * centroids.square().sum(dim=1)
        return 1 - (stream * centroids).sum(dim=1) / norms.sqrt()
    return (stream - centroids).square().sum(dim=1)


@torch.library.impl(_LIBRARY, "steer", "CUDA")
def _steer_cuda(*tensors: torch.Tensor) -> torch.Tensor:
    from .op_triton import launch

    return launch(*tensors)


@torch.library.register_fake("trimtab::steer", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _steer_fake(hidden: torch.Tensor, residual: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(residual)
