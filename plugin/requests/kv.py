"""Which cached KV blocks a steered request may share: derived, not guessed.

A vector added after block l changes what blocks l+1, l+2, … write to the cache, at the steered positions and at all
that attend to them. So a profile that acts only after the last block changes no KV, and every prefix block is shared
with everybody. The same goes for one whose vectors are all zero, which only watches concepts. For the others, the KV of
a position is decided by the tokens up to it and by the steering up to it: every block gets extra keys that say which of
its positions each profile steers, and with what, and vLLM's hash chain carries the keys of the blocks before. Blocks
before the first steered position have no key and are shared with everybody. Two requests share a block exactly when
tokens and steering agree up to its end: a token that was generated, and so steered, is not taken for a prompt token,
which `answer` leaves alone, in the next turn of a conversation.

The key of a profile holds all that decides the steered bits: its digest (tensors, gate, positions), alpha and the
version of the op.

Leans on vllm/v1/core/kv_cache_utils.py: generate_block_hash_extra_keys (0.29 to 0.32), which the block hasher looks
up as a module global and two more modules import by name.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

from trimtab.vectors import Profile
from trimtab.vectors.manifest import adds_nothing

from ..compat.versions import OP_VERSION
from ..compat.wrapping import wrap
from .positions import clipped

__all__ = ["WIRE_KEY", "block_keys", "changes_no_kv", "first_keyed", "install", "kv_key"]

WIRE_KEY = "trimtab"
"""Where a resolved request carries its steering in `SamplingParams.extra_args`. Reserved: nobody else may write it."""

_HASHER_MODULE = "vllm.v1.core.kv_cache_utils"
_IMPORTERS = ("vllm.v1.core.block_pool", "vllm.v1.simple_kv_offload.manager")
_HASHER = "generate_block_hash_extra_keys"

ExtraKeys = tuple[tuple[Any, ...] | None, int]


def changes_no_kv(profile: Profile) -> bool:
    """Whether a profile changes no KV at all, so that its requests share every block with unsteered ones."""
    manifest = profile.manifest
    return adds_nothing(manifest) or tuple(manifest.layers) == (manifest.base_model.num_layers - 1,)


def kv_key(profile: Profile, alpha: float) -> str | None:
    """What the KV of positions that a profile steers depends on; None where it changes no KV."""
    if changes_no_kv(profile):
        return None
    decisive = json.dumps([OP_VERSION, profile.digest, alpha.hex()])
    return hashlib.sha256(decisive.encode()).hexdigest()


def block_keys(extra_args: dict[str, Any] | None, start: int, end: int) -> tuple[tuple[Any, ...], ...]:
    """The keys that steering adds to the block of positions start ≤ p < end, one per profile that acts in it.

    Each is a pair of a tag and a value, as vLLM's own are: of a longer one, KV events would publish a part.
    """
    parts = (extra_args or {}).get(WIRE_KEY, ())
    # Sorted, because the sum does not depend on the order of its parts.
    keys = sorted((part["kv_key"], clipped(part["spans"], start, end)) for part in parts if part["kv_key"] is not None)
    return tuple((WIRE_KEY, (key, spans)) for key, spans in keys if spans)


def first_keyed(params: Any) -> int | None:
    """The first position whose block has a key of ours, for the sampling parameters of a request; None for no such."""
    parts = (params.extra_args or {}).get(WIRE_KEY, ()) if params is not None else ()
    return min((part["spans"][0][0] for part in parts if part["kv_key"] is not None), default=None)


def install() -> None:
    """Let vLLM's block hasher ask `block_keys` too. Safe to call again."""
    hashers = importlib.import_module(_HASHER_MODULE)
    wrap(hashers, _HASHER, _with_steering)
    for name in _IMPORTERS:
        # One that is imported later takes the new function by itself.
        if (module := sys.modules.get(name)) is not None:
            setattr(module, _HASHER, getattr(hashers, _HASHER))


def _with_steering(original: Callable[..., ExtraKeys], request: Any, start: int, end: int, mm: int) -> ExtraKeys:
    """vLLM's extra keys of the block of tokens start ≤ p < end, and ours."""
    keys, next_mm = original(request, start, end, mm)
    params = request.sampling_params  # None for pooling requests
    ours = block_keys(params.extra_args, start, end) if params is not None else ()
    return ((*(keys or ()), *ours) if ours else keys), next_mm
