"""States of the residual stream: the rules that choose them, and the folder that keeps them.

represent      a model and a file of samples → a folder of states
LastPrompt, Predicts, MeanGenerated   the rules (docs/method.md §1)
load_states    the states of one layer, all at once
ShardedStates  the same, one shard at a time
LayerStates    what both give
pair_states    the states of two models, paired
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazily
from .paired import pair_states
from .rules import LastPrompt, MeanGenerated, Predicts
from .store import LayerStates, ShardedStates, load_states

if TYPE_CHECKING:
    from .collect import represent

__all__ = [
    "LastPrompt",
    "LayerStates",
    "MeanGenerated",
    "Predicts",
    "ShardedStates",
    "load_states",
    "pair_states",
    "represent",
]
__getattr__ = lazily(__name__, {"represent": ".collect"})
