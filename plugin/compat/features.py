"""Which of vLLM's features are refused in an engine that steers or captures, and why."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import StartupError

if TYPE_CHECKING:
    from vllm.config import VllmConfig

__all__ = ["check_features"]

_LOAD_FORMATS = frozenset({"auto", "hf", "safetensors", "fastsafetensors", "instanttensor", "mistral"})

_SPECULATION = ("ngram", "draft_model")


def _speculates_otherwise(config: VllmConfig) -> bool:
    """Whether a drafter sees more than tokens, or something but the target's verdict on every draft counts."""
    speculative: Any = config.speculative_config
    return speculative is not None and not (
        speculative.method in _SPECULATION
        and getattr(speculative, "rejection_sample_method", "standard") == "standard"
        and not getattr(speculative, "enable_adaptive_verification", False)
    )


def _offloads_weights(config: VllmConfig) -> bool:
    offload: Any = getattr(config, "offload_config", None)
    return offload is not None and (offload.uva.cpu_offload_gb > 0 or offload.prefetch.offload_group_size > 0)


def _scales_the_stream(config: VllmConfig) -> bool:
    """DeepSeek-V2 and its kin divide the whole stream by this factor in float16, so that it does not overflow."""
    factor = getattr(config.model_config.hf_text_config, "routed_scaling_factor", None)
    return str(config.model_config.dtype) == "torch.float16" and factor not in (None, 1)


# Features under which a steered answer could be wrong. Each is a question to the configuration and a reason.
_REFUSED: tuple[tuple[str, Callable[[VllmConfig], bool], str], ...] = (
    (
        "prefill context parallelism",
        lambda c: c.parallel_config.prefill_context_parallel_size > 1,
        "a rank then sees only part of a prompt's rows",
    ),
    (
        "decode context parallelism (--decode-context-parallel-size)",
        lambda c: c.parallel_config.decode_context_parallel_size > 1,
        "its KV blocks are spread over ranks, which was not tried",
    ),
    (
        "sequence parallelism (pass_config.enable_sp)",
        lambda c: bool(getattr(c.compilation_config.pass_config, "enable_sp", False)),
        "a rank then sees only part of the rows between two layers",
    ),
    (
        "experts whose tokens are spread over ranks (--enable-expert-parallel with tensor and data parallelism)",
        lambda c: bool(c.parallel_config.use_sequence_parallel_moe),
        "in some models a rank then has only part of the rows between two layers",
    ),
    (
        "float16 in a model that scales its experts (routed_scaling_factor in its configuration)",
        _scales_the_stream,
        "vLLM divides the residual stream by that factor in float16, and vectors are not; use --dtype bfloat16",
    ),
    (
        "dual-batch overlap (--enable-dbo)",
        lambda c: c.parallel_config.use_ubatching,
        "two half batches share one set of entries",
    ),
    (
        "--kv-sharing-fast-prefill",
        lambda c: c.cache_config.kv_sharing_fast_prefill,
        "it skips the rows of a prompt in the later layers",
    ),
    (
        "this way of speculative decoding",
        _speculates_otherwise,
        f"the methods {' and '.join(_SPECULATION)} with standard rejection were tried; others read steered states, "
        "accept what was not verified, or leave rows out of a step after they were counted",
    ),
    (
        "weights that are offloaded to the CPU (--cpu-offload-gb, --offload-group-size)",
        _offloads_weights,
        "vLLM then puts a forward of its own over that of each layer, which would hide the addition",
    ),
    (
        "a --worker-cls that is not vLLM's own",
        lambda c: not str(c.parallel_config.worker_cls).startswith("vllm.v1.worker."),
        "its model runner may not tell which rows belong to which request",
    ),
    (
        "a device other than a CPU or CUDA",
        lambda c: c.device_config.device_type not in ("cpu", "cuda"),
        "the addition has no kernel for it",
    ),
    (
        "a KV connector (--kv-transfer-config, --kv-offloading-size)",
        lambda c: c.kv_transfer_config is not None,
        "blocks from elsewhere carry no word of how they were steered",
    ),
    (
        "a --load-format that reads other files than the model folder's safetensors",
        lambda c: str(c.load_config.load_format) not in _LOAD_FORMATS,
        "profiles could not be checked against the weights that are served",
    ),
    (
        "weight transfer (--weight-transfer-config)",
        lambda c: getattr(c, "weight_transfer_config", None) is not None,
        "profiles belong to the weights that they were made for",
    ),
    (
        "a pooling runner (--runner pooling)",
        lambda c: c.model_config.runner_type != "generate",
        "it generates nothing",
    ),
    ("a diffusion model", lambda c: bool(c.model_config.is_diffusion), "its positions are not generated in order"),
    ("an encoder-decoder model", lambda c: bool(c.model_config.is_encoder_decoder), "its decoder was not tried"),
)


def check_features(vllm_config: VllmConfig) -> None:
    """Refuse what could make a steered answer wrong.

    Raises:
        StartupError: naming the feature, the reason and the way out.
    """
    if os.environ.get("VLLM_USE_RUST_FRONTEND", "0").lower() not in ("", "0", "false"):
        raise StartupError(
            "VLLM_USE_RUST_FRONTEND bypasses the routes that read the `steering` field; unset it to serve with trimtab"
        )
    for feature, is_on, reason in _REFUSED:
        if is_on(vllm_config):
            raise StartupError(
                f"trimtab cannot steer with {feature}: {reason}; switch it off or start without profiles"
            )
