"""Profiles whose work can be read off an answer: each makes tinyworld say one word, whatever it is asked.

The vector points where the word's logit is farthest above all others, and is so long that nothing of the stream beside
it counts. So the text of an answer, by itself, says which profile acted on each of its tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file

from trimtab.vectors import AlphaRange, ModelIdentity, Profile, SteeringVector, save_profile

HELD = "held"
"""The profile that the tests' policies enforce."""

WORDS = {
    HELD: "is",
    "say-arm": "arm",
    "say-both": "both",
    "say-safe": "safe",
    "say-high": "high",
    "say-tie": "tie",
    "say-that": "that",
}
"""The word of each profile. Their logits are 18 to 24 above the next one's, so that sampling says nothing else."""

_LENGTH = 1e4
_WEAK = 0.2  # of the size of the stream at most, so that a request may add it beside what is enforced
WEAK = ("weak-a", "weak-b")
"""Profiles that hardly change an answer."""


class Speech:
    """Makes such profiles for the model in a folder."""

    def __init__(self, model: Path) -> None:
        weights = load_file(model / "model.safetensors")
        named = {name.removeprefix("language_model."): weight.float().numpy() for name, weight in weights.items()}
        self._logits, self._norm = named["lm_head.weight"], named["model.norm.weight"]
        self._identity = ModelIdentity.of(model)
        self._ids = json.loads((model / "tokenizer.json").read_text())["model"]["vocab"]

    def profile(self, name: str, word: str) -> Profile:
        """A coarse profile of the last block that makes the model say `word`."""
        row = self._ids[f"Ġ{word}"]
        direction = (self._logits[row] - self._logits.mean(0)) * self._norm
        return self._coarse(name, direction, _LENGTH, 0.0)

    def weak(self, name: str, seed: int) -> Profile:
        """A coarse profile in a direction that means nothing."""
        return self._coarse(name, np.random.default_rng(seed).normal(size=self._identity.hidden_size), _WEAK, -1.0)

    def save_all(self, folder: Path) -> None:
        for name, word in WORDS.items():
            save_profile(self.profile(name, word), folder / name)
        for seed, name in enumerate(WEAK):
            save_profile(self.weak(name, seed), folder / name)

    def _coarse(self, name: str, direction: npt.NDArray[Any], length: float, least: float) -> Profile:
        vector = (length * direction / np.linalg.norm(direction)).astype(np.float32)
        layer = self._identity.num_layers - 1
        alpha = AlphaRange(default=1.0, min=least, max=2.0)
        return Profile.coarse(name, [SteeringVector(layer, vector)], model=self._identity, alpha=alpha)
