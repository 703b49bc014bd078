"""A training's folder, as trainings leave it: checkpoints half written, deleted, of adapters only, or none at all."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import DataError

__all__ = ["Training"]

_STEP = re.compile(r"(\d+)$")
_CONFIGS = ("config.json", "adapter_config.json")


class Training:
    """The checkpoints in a folder (step-000040, checkpoint-500, …), each given once, in the order of their steps.

    What is named like a checkpoint and is none is told once, and looked at again when a file of it changes.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None] = lambda message: None) -> None:
        """tell: is given one line for each checkpoint that is left out.

        Raises:
            DataError: no such folder.
        """
        if not folder.is_dir():
            raise DataError(f"{folder}: is no folder; give the one that the training writes its checkpoints to")
        self.folder = folder
        self._tell = tell
        self._given: set[str] = set()
        self._left_out: dict[str, float] = {}
        """By name, when the newest file in it was written."""

    def fresh(self, settled: float = 0.0) -> Iterator[tuple[int, Path]]:
        """Step and folder of each checkpoint that was not given before.

        settled: seconds for which no file of a checkpoint must have changed; one that is being written waits.
        """
        steps = ((_STEP.search(path.name), path) for path in self.folder.iterdir())
        for step, path in sorted((int(step[1]), path) for step, path in steps if step):
            newest = _newest(path)
            known = path.name in self._given or self._left_out.get(path.name) == newest
            # A file server whose clock is ahead writes in the future: that is no sign of a file still being written.
            if newest is None or known or abs(time.time() - newest) < settled:
                continue
            if reason := _no_checkpoint(path):
                self.leave_out(path, reason)
                continue
            self._given.add(path.name)
            yield step, path

    def leave_out(self, path: Path, reason: str) -> None:
        """Say why a checkpoint is not read, unless it has been deleted; it is given again when a file of it changes."""
        self._given.discard(path.name)
        newest = _newest(path)
        if newest is not None:
            self._left_out[path.name] = newest
            self._tell(f"{path.name} is left out: {reason}")


def _newest(path: Path) -> float | None:
    """When the newest file of a checkpoint was written (of a link to nothing: the link); None where there is none."""
    try:
        if path.is_dir():
            return max([path.stat().st_mtime, *(file.lstat().st_mtime for file in path.iterdir())])
        return path.lstat().st_mtime if path.is_symlink() and not path.exists() else None
    except FileNotFoundError:
        return None


def _no_checkpoint(path: Path) -> str:
    """Why this is no checkpoint; "" for one."""
    if not path.exists():
        return "it is a link to nothing"
    if not any((path / name).is_file() for name in _CONFIGS):
        return "it has neither a config.json nor an adapter_config.json"
    if not any(weights.is_file() for weights in path.glob("*.safetensors")):
        return "it has no *.safetensors; save the weights as safetensors"
    return ""
