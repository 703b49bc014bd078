"""What a direction of the residual stream says in words (docs/method.md §2, text grounding)."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import ModelError, SettingError
from ..models.vocabulary import Vocabulary

if TYPE_CHECKING:  # torch takes seconds to import, and a dictionary needs none of it
    from torch import nn

    from ..models.reader import Reader

__all__ = ["top_words", "unembed", "word_overlap"]

Float32 = npt.NDArray[np.float32]

WORDS = 15
"""How many words are kept at most."""
TOP_TOKENS = 50
"""How far down the unembedding they are looked for: what comes later says nothing about a concept."""

_NORMS = ("norm", "ln_f", "final_layernorm", "final_layer_norm", "norm_f")


def top_words(vectors: npt.ArrayLike, model: Reader) -> list[tuple[str, ...]]:
    """For each vector its words, best first: at most 15, out of the 50 top tokens of `unembed`, each once.

    vectors: [K, D], states after any block, such as centroids. Stop words and fragments are left
    out, numbers stay; see `Vocabulary`. A vector whose top tokens are no words has none. A tie goes to the lower token.

    Raises:
        SettingError, ModelError: as `unembed`.
    """
    best = np.argsort(-unembed(vectors, model), axis=1, kind="stable")[:, :TOP_TOKENS]
    vocabulary = Vocabulary(model.tokenizer)
    words = ([vocabulary.word(int(token)) for token in tokens] for tokens in best)
    return [tuple(dict.fromkeys(word for word in found if word))[:WORDS] for found in words]


def word_overlap(a: Collection[str], b: Collection[str]) -> float:
    """T-Overlap(a, b) = 100 · |T(a) ∩ T(b)| / |T(a)|, in percent; 0 where a has no word.

    Not symmetric: it is the share of a's words that b has too.
    """
    first = set(a)
    return 100 * len(first & set(b)) / len(first) if first else 0.0


def unembed(vectors: npt.ArrayLike, model: Reader) -> Float32:
    """unembedding(final_norm(u)), float32 [K, V]: what the model would say next if the stream were u.

    vectors: [K, D]. The published code leaves the final norm out in front of the unembedding for layers in the middle;
    it weighs every coordinate, so other words come out.

    Raises:
        SettingError: vectors of another size than the model's stream; ModelError: no norm or unembedding is found.
    """
    import torch

    array = np.asarray(vectors, np.float32)
    if array.ndim != 2 or array.shape[1] != model.identity.hidden_size:
        raise SettingError(
            f"vectors of shape {array.shape} were given to a model of hidden size {model.identity.hidden_size}; "
            f"expected [K, {model.identity.hidden_size}], of a dictionary made with this model"
        )
    head = model.model.get_output_embeddings()
    if head is None:
        raise ModelError(f"{type(model.model).__name__} has no unembedding; words need a model that generates text")
    stream = torch.tensor(array, device=model.device, dtype=head.weight.dtype)
    with torch.inference_mode():
        scores: Float32 = head(_final_norm(model.model)(stream)).float().cpu().numpy()
    return scores


def _final_norm(model: Any) -> nn.Module:
    from torch import nn

    decoder = model.get_decoder()
    for name in _NORMS:
        norm = getattr(decoder, name, None)
        if isinstance(norm, nn.Module):
            return norm
    raise ModelError(f"no final norm found in {type(decoder).__name__}; looked for {', '.join(_NORMS)}")
