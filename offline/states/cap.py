"""At most so many states per label: common words would fill a folder long before rare ones have enough."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from safetensors import safe_open

from trimtab.vectors.states import BACKGROUND, StatesManifest

__all__ = ["Cap"]


class Cap:
    """Counts the states of each label. It begins with those that a manifest's shards hold already."""

    def __init__(self, most: int, folder: Path, manifest: StatesManifest) -> None:
        self._most = most
        self._counts: Counter[str] = Counter()
        for shard in manifest.shards:
            with safe_open(folder / f"{shard.name}.safetensors", framework="numpy") as file:
                labels = file.get_tensor("label")
                if shard.background is not None:
                    labels = labels[file.get_tensor(BACKGROUND) == 0]
            self._counts.update(manifest.labels[label] for label in labels)

    def admits(self, label: str) -> bool:
        """Whether one more state of this label is kept; then it is counted."""
        self._counts[label] += 1
        return self._counts[label] <= self._most
