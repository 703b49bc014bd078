"""After any number of refusals, the engine has every picture that the front end sends without its data."""

from __future__ import annotations

import random
from collections.abc import Iterator
from multiprocessing import Lock
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.multimodal import cache as caches
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFeatureSpec,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    PlaceholderRange,
)

from trimtab.plugin.requests.sent_pictures import unsend

MIB = 1 << 20
SIZES = {f"picture-{number}": 1000 * (1 + number % 7) for number in range(24)}  # numbers of 4 bytes; a MiB holds some


def config(**settings: Any) -> Any:
    multimodal = SimpleNamespace(
        mm_processor_cache_gb=256 * 1024 / 2**30, mm_shm_cache_max_object_size_mb=1, **settings
    )
    model = SimpleNamespace(get_multimodal_config=lambda: multimodal)
    return SimpleNamespace(model_config=model, parallel_config=SimpleNamespace(world_size=1))


def item_of(name: str) -> MultiModalKwargsItem:
    data = torch.full((SIZES[name],), float(name.removeprefix("picture-")))
    return MultiModalKwargsItem({"pixels": MultiModalFieldElem(data=data, field=MultiModalBatchedField())})


def rendered(cache: Any, names: list[str]) -> list[MultiModalFeatureSpec]:
    """The pictures of a request, as vLLM's renderer hands them to the engine."""
    cached = cache.is_cached(names)
    for name in names:
        cache.touch_sender_cache_item(name)
    place = PlaceholderRange(offset=0, length=1)
    return [
        MultiModalFeatureSpec(
            data=cache.get_and_update_item(None if there else (item_of(name), []), name)[0],
            modality="image",
            identifier=name,
            mm_position=place,
            mm_hash=name,
        )
        for name, there in zip(names, cached, strict=True)
    ]


def received(cache: Any, features: list[MultiModalFeatureSpec]) -> list[float]:
    found = []
    for feature in cache.get_and_update_features(features):
        assert feature.data is not None
        pixels = feature.data["pixels"].data
        assert isinstance(pixels, torch.Tensor)
        found.append(float(pixels[0]))
    return found


@pytest.fixture(params=["lru", "shm"])
def both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    if request.param == "lru":
        model = config().model_config
        yield caches.LruKeyReplicatedSenderCache(model), caches.LruKeyReplicatedReceiverCache(model)
        return
    monkeypatch.setenv("VLLM_OBJECT_STORAGE_SHM_BUFFER_NAME", f"trimtab-{random.getrandbits(48):x}")
    sender = caches.ShmObjectStoreSenderCache(config())
    yield sender, caches.ShmObjectStoreReceiverCache(config(), Lock())
    sender.close()


def test_no_request_misses_a_picture_after_a_thousand_refusals_with_eviction(both: tuple[Any, Any]) -> None:
    sender, receiver = both
    draw = random.Random(0)
    refused = evicted = 0
    for _ in range(3000):
        names = draw.sample(sorted(SIZES), draw.choice([1, 1, 2]))
        evicted += len(SIZES) - sum(map(sender.is_cached_item, SIZES))
        features = rendered(sender, names)
        if draw.random() < 0.4:
            unsend(sender, names)
            refused += 1
        else:
            assert received(receiver, features) == [float(name.removeprefix("picture-")) for name in names]
    assert refused > 1000
    assert evicted > 0


def test_refused_pictures_leave_room_for_others(both: tuple[Any, Any]) -> None:
    sender, receiver = both
    for number in range(200):
        name = f"picture-{number % 20}"
        rendered(sender, [name])
        unsend(sender, [name])
    for name in ("picture-20", "picture-23"):
        received(receiver, rendered(sender, [name]))
        assert sender.is_cached_item(name)


def test_nothing_to_take_back_is_harmless() -> None:
    unsend(None, ["picture-1"])
    unsend(object(), [])
