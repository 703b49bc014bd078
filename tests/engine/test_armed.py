"""Arming: the layers that profiles use, once, in the outermost decoder; everything else is as vLLM made it."""

from __future__ import annotations

import pytest

from tests.engine.conftest import LAST, MIDDLE
from tests.engine.engine import Engine
from trimtab.vectors import Registry

pytestmark = pytest.mark.engine

LLAMA_LAYER = "vllm.model_executor.models.llama.LlamaDecoderLayer"
ARMED_LAYER = "trimtab.plugin.model.arming.ArmedLlamaDecoderLayer"


def test_a_llava_whose_llama_comes_from_the_same_registry_is_armed_once(engine: Engine) -> None:
    found = engine.call("armed")
    assert found["tables"] == found["tabled"] == [MIDDLE, LAST]
    assert found["token_entries"] == 1
    assert not found["inner_tables"]


def test_layers_that_no_profile_uses_are_as_vllm_made_them(engine: Engine) -> None:
    layers = engine.call("armed")["layers"]
    assert [layers[layer] for layer in (MIDDLE, LAST)] == [ARMED_LAYER] * 2
    assert {layer for number, layer in enumerate(layers) if number not in (MIDDLE, LAST)} == {LLAMA_LAYER}


def test_tables_hold_the_rows_of_the_profiles_and_one_for_the_self_check(engine: Engine, registry: Registry) -> None:
    # A vector is a row; a concept is two, its centroid and its vector.
    needed = {
        str(layer): 1
        + sum(
            len(array.reshape(-1, 192))
            for p in registry.values()
            if layer in p.layers
            for array in p.tensors[layer].named.values()
        )
        for layer in (MIDDLE, LAST)
    }
    assert engine.call("armed")["rows"] == needed
