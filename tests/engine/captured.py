"""States that an engine captures, and what transformers has at the same positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.engine.asking import Ask, caption, questions
from tests.engine.conftest import LAST, MIDDLE
from tests.engine.engine import Engine
from tests.engine.reference import Reference

LAYERS = (0, MIDDLE, LAST)
IMAGE = 64
TEXT = Ask("is there a red ball? are there two blue stars? " * 6, max_tokens=20, ignore_eos=True)
ASKS = [
    caption(3, max_tokens=12),
    replace(questions("number", 1)[0], max_tokens=1),
    TEXT,
    replace(questions("other", 2)[1], max_tokens=4),
    Ask("who is there?", max_tokens=7, ignore_eos=True),
    caption(4, max_tokens=33, ignore_eos=True),
]


@dataclass(frozen=True)
class Rows:
    prompt: list[int]
    tokens: list[int]
    positions: npt.NDArray[np.int64]
    layers: dict[int, npt.NDArray[np.float32]]


def capture(engine: Engine, asks: Sequence[Ask], positions: str, folder: Path) -> list[Rows]:
    """What the engine captures of each request; the folder is for its files."""
    folder.mkdir(exist_ok=True)
    rows = []
    for one in engine.call("capture", asks=[ask.to_json() for ask in asks], positions=positions, out=str(folder)):
        arrays = dict(np.load(one["path"]))
        rows.append(
            Rows(
                one["prompt"],
                one["tokens"],
                arrays.pop("positions"),
                {int(layer): values for layer, values in arrays.items()},
            )
        )
    return rows


@torch.inference_mode()
def _expected(reference: Reference, ask: Ask, tokens: Sequence[int]) -> dict[int, npt.NDArray[np.float32]]:
    """The stream after each block at every position of prompt and answer, [P + n - 1, D], by hooks in transformers."""
    found: dict[int, npt.NDArray[np.float32]] = {}

    def keep(layer: int) -> Any:
        def hook(block: Any, inputs: Any, output: Any) -> None:
            found[layer] = (output if isinstance(output, torch.Tensor) else output[0])[0].numpy()

        return hook

    handles = [reference.reader.blocks[layer].register_forward_hook(keep(layer)) for layer in LAYERS]
    try:
        reference.logprobs(ask, tokens)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _wanted(kind: str, ask: Ask, rows: Rows) -> list[int]:
    """The positions of a kind, written down once more."""
    length, end = len(rows.prompt), len(rows.prompt) + len(rows.tokens) - 1
    image_token = max(set(rows.prompt), key=rows.prompt.count)
    image = {p for p in range(length) if ask.scene is not None and rows.prompt[p] == image_token}
    assert len(image) == (0 if ask.scene is None else IMAGE)
    return {
        "last_prompt": [length - 1],
        "prompt": list(range(length - 1)),
        "answer": list(range(length - 1, end)),
        "all": list(range(end)),
        "image": sorted(image),
        "text": [p for p in range(length) if p not in image],
    }[kind]


def check(reference: Reference, kind: str, asks: Sequence[Ask], found: Sequence[Rows]) -> None:
    """Hold captured rows to those of hooks in transformers, at the positions of that kind."""
    for ask, rows in zip(asks, found, strict=True):
        assert rows.positions.tolist() == _wanted(kind, ask, rows)
        expected = _expected(reference, ask, rows.tokens)
        assert sorted(rows.layers) == sorted(expected)
        for layer, values in rows.layers.items():
            wanted = expected[layer][rows.positions]
            assert values.dtype == np.float32
            assert values.shape == wanted.shape
            np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=2e-4)
            scale = np.linalg.norm(values, axis=1) * np.linalg.norm(wanted, axis=1)
            assert ((values * wanted).sum(axis=1) / scale >= 0.9999).all()
