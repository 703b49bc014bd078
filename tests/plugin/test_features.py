"""What could make a steered answer wrong stops the start, with a sentence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch

from trimtab.plugin.compat.features import check_features
from trimtab.plugin.errors import StartupError


def speculation(method: str, **settings: object) -> SimpleNamespace:
    return SimpleNamespace(
        **{"method": method, "rejection_sample_method": "standard", "enable_adaptive_verification": False, **settings}
    )


def offloading(gigabytes: float = 0, group: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        uva=SimpleNamespace(cpu_offload_gb=gigabytes), prefetch=SimpleNamespace(offload_group_size=group)
    )


def plain_engine(**changes: object) -> Any:
    """What `check_features` reads of vLLM's configuration, with nothing switched on."""
    facts: dict[str, Any] = {
        "parallel_config": SimpleNamespace(
            prefill_context_parallel_size=1,
            decode_context_parallel_size=1,
            use_ubatching=False,
            use_sequence_parallel_moe=False,
            rank=0,
            worker_cls="vllm.v1.worker.gpu_worker.Worker",
        ),
        "compilation_config": SimpleNamespace(pass_config=SimpleNamespace()),
        "device_config": SimpleNamespace(device_type="cuda"),
        "offload_config": offloading(),
        "cache_config": SimpleNamespace(kv_sharing_fast_prefill=False),
        "speculative_config": None,
        "kv_transfer_config": None,
        "weight_transfer_config": None,
        "load_config": SimpleNamespace(load_format="auto"),
        "model_config": SimpleNamespace(
            is_diffusion=False,
            is_encoder_decoder=False,
            runner_type="generate",
            dtype=torch.bfloat16,
            hf_text_config=SimpleNamespace(),
        ),
    }
    for name, value in changes.items():
        part, _, inner = name.partition("__")
        if inner:
            setattr(facts[part], inner, value)
        else:
            facts[part] = value
    return SimpleNamespace(**facts)


def test_an_engine_with_nothing_unusual_may_start() -> None:
    check_features(plain_engine())


@pytest.mark.parametrize("method", ["ngram", "draft_model"])
def test_an_engine_whose_drafter_sees_tokens_alone_may_start(method: str) -> None:
    check_features(plain_engine(speculative_config=speculation(method)))


def test_every_other_way_to_speculate_that_vllm_knows_stops_the_start() -> None:
    from vllm.config.speculative import SpeculativeMethod

    methods = _literals(SpeculativeMethod)
    assert {"ngram", "draft_model", "eagle3", "medusa", "extract_hidden_states", "deepseek_mtp", "suffix"} <= methods
    for method in methods - {"ngram", "draft_model"} | {"of a version to come"}:
        with pytest.raises(StartupError, match="cannot steer with this way of speculative decoding"):
            check_features(plain_engine(speculative_config=speculation(method)))


def _literals(kind: Any) -> set[str]:
    return {value for found in get_args(kind) for value in ([found] if isinstance(found, str) else _literals(found))}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"load_config__load_format": "ipc_cache"}, "cannot steer with a --load-format that reads other files"),
        ({"load_config__load_format": "dummy"}, "could not be checked against the weights"),
        ({"parallel_config__prefill_context_parallel_size": 2}, "cannot steer with prefill context parallelism"),
        ({"parallel_config__use_sequence_parallel_moe": True}, "cannot steer with experts whose tokens are spread"),
        (
            {
                "model_config__dtype": torch.float16,
                "model_config__hf_text_config": SimpleNamespace(routed_scaling_factor=2.5),
            },
            "cannot steer with float16 in a model that scales its experts .* use --dtype bfloat16",
        ),
        ({"parallel_config__use_ubatching": True}, "cannot steer with dual-batch overlap"),
        ({"cache_config__kv_sharing_fast_prefill": True}, "cannot steer with --kv-sharing-fast-prefill"),
        (
            {"speculative_config": speculation("draft_model", rejection_sample_method="synthetic")},
            "accept what was not verified",
        ),
        (
            {"speculative_config": speculation("draft_model", enable_adaptive_verification=True)},
            "leave rows out of a step",
        ),
        ({"parallel_config__decode_context_parallel_size": 2}, "cannot steer with decode context parallelism"),
        ({"compilation_config__pass_config": SimpleNamespace(enable_sp=True)}, "cannot steer with sequence parallel"),
        ({"offload_config": offloading(gigabytes=0.5)}, "cannot steer with weights that are offloaded"),
        ({"offload_config": offloading(group=4)}, "cannot steer with weights that are offloaded"),
        ({"parallel_config__worker_cls": "other.Worker"}, "cannot steer with a --worker-cls that is not vLLM's"),
        ({"device_config__device_type": "tpu"}, "cannot steer with a device other than"),
        ({"kv_transfer_config": object()}, "cannot steer with a KV connector"),
        ({"weight_transfer_config": object()}, "cannot steer with weight transfer"),
        ({"model_config__runner_type": "pooling"}, "cannot steer with a pooling runner"),
        ({"model_config__is_diffusion": True}, "cannot steer with a diffusion model"),
        ({"model_config__is_encoder_decoder": True}, "cannot steer with an encoder-decoder model"),
    ],
)
def test_what_could_make_a_steered_answer_wrong_stops_the_start(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(StartupError, match=sentence):
        check_features(plain_engine(**change))


@pytest.mark.parametrize(
    ("dtype", "factor"), [(torch.bfloat16, 2.5), (torch.float16, 1), (torch.float16, 1.0), (torch.float16, None)]
)
def test_a_stream_that_is_not_scaled_may_start(dtype: torch.dtype, factor: float | None) -> None:
    text = SimpleNamespace(routed_scaling_factor=factor)
    check_features(plain_engine(model_config__dtype=dtype, model_config__hf_text_config=text))


@pytest.mark.parametrize("value", ["1", "true"])
def test_the_rust_front_end_stops_the_start(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", value)
    with pytest.raises(StartupError, match="unset it to serve with trimtab"):
        check_features(plain_engine())
