"""The questions that refuse a feature, put to configurations as vLLM itself makes them, with its names and defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engine.engine import SMALL
from trimtab.plugin.compat.features import check_features
from trimtab.plugin.engine import install
from trimtab.plugin.errors import StartupError

pytestmark = pytest.mark.engine

NGRAM = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}


def _check(model: Path, **settings: Any) -> None:
    from vllm import EngineArgs

    install()
    args = EngineArgs(str(model), dtype="float32", max_model_len=256, block_size=32, **settings)
    check_features(args.create_engine_config())


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"speculative_config": NGRAM},
        {"enable_lora": True},
        {"scheduling_policy": "priority"},
        {"enable_prompt_embeds": True},
        {"enable_chunked_prefill": False, "enable_prefix_caching": False},
        {"kv_cache_dtype": "fp8_e5m2"},
        {"data_parallel_size": 2},
        {"model_impl": "transformers"},
    ],
    ids=str,
)
def test_what_changes_no_row_and_no_key_may_start(model: Path, settings: dict[str, Any]) -> None:
    _check(model, **settings)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"cpu_offload_gb": 0.5}, "weights that are offloaded"),
        ({"offload_group_size": 2}, "weights that are offloaded"),
        ({"kv_offloading_size": 0.5}, "a KV connector"),
        ({"kv_sharing_fast_prefill": True}, "kv-sharing-fast-prefill"),
        ({"worker_cls": "elsewhere.Worker"}, "a --worker-cls that is not vLLM's own"),
        ({"speculative_config": {**NGRAM, "method": "ngram_gpu"}}, "this way of speculative decoding"),
        (
            {
                "speculative_config": {
                    **NGRAM,
                    "rejection_sample_method": "synthetic",
                    "synthetic_acceptance_length": 1.5,
                }
            },
            "this way of speculative decoding",
        ),
        ({"load_format": "dummy"}, "a --load-format that reads other files"),
    ],
    ids=str,
)
def test_what_could_make_a_steered_answer_wrong_is_refused(
    model: Path, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(StartupError, match=sentence):
        _check(model, **settings)
