"""Pictures of a refused request: the front end took them for sent when it rendered the prompt, and they never were.

vLLM keeps two picture caches in step, the front end's and the engine's, and sends a picture that both should have
without its data. A refusal after rendering leaves them apart: the front end has put pictures in, and has evicted
others to make room, which the engine knows nothing of. So the next request with one of them, anybody's, would fail.

Leans on vllm/multimodal/cache (0.29 to 0.32): the sender caches, `clear_cache`, and of the cache in shared memory
`_shm_cache` with its `key_index` and `writer_flag`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["unsend"]


def unsend(cache: Any, hashes: Iterable[str]) -> None:
    """Let the front end forget what it took for sent.

    cache: the front end's, or None. hashes: of the pictures of one refused request, in any order.
    """
    hashes = list(hashes)
    if cache is None or not hashes:
        return
    if (shared := getattr(cache, "_shm_cache", None)) is not None:
        _release(shared, hashes)
    else:
        # Both caches evict what was used longest ago. Emptied, this one holds the latest of what the engine's holds
        # from now on, and never takes a picture for sent that the engine has evicted. Pictures are sent once more.
        cache.clear_cache()


def _release(shared: Any, hashes: Iterable[str]) -> None:
    """Take back the promise of a reader. A picture that is promised more readers than come is never evicted."""
    for mm_hash in hashes:
        if mm_hash in shared.key_index:  # else it was sent with its data, outside the cache
            _, written = shared.key_index[mm_hash]
            shared.writer_flag[written] -= 1
