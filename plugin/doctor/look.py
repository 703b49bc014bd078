"""A model as vLLM builds it, without weights and without an engine: where its decoder layers are.

Leans on vllm/engine/arg_utils.py: EngineArgs.create_engine_config, vllm/model_executor/model_loader/utils.py:
initialize_model, and vllm/distributed/parallel_state.py: a model is built within a group of processes, here of this one
alone (0.29 to 0.32).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trimtab.vectors import ModelIdentity
from trimtab.vectors.manifest import template_digest

from ..config import model_folder
from ..model.arming import decoder_layers

if TYPE_CHECKING:
    from vllm.config import VllmConfig

__all__ = ["Built", "Written", "build", "read"]


@dataclass(frozen=True)
class Written:
    """What a model's folder says. template: the digest of its chat template, None where it has none."""

    folder: Path
    identity: ModelIdentity
    template: str | None
    pictures: bool


@dataclass(frozen=True)
class Built:
    """What vLLM makes of it. path: of the decoder layers, from the model. kinds: their classes.

    own: whether vLLM has a class of its own for it, else its Transformers backend serves it.
    """

    model: str
    own: bool
    dtype: str
    path: str
    layers: int
    kinds: tuple[str, ...]


def read(model: str) -> Written:
    """What is known from the folder of a model, or from that of a name in the Hub's cache.

    Raises:
        StartupError: its weights are not on this machine. FormatError: it is no model folder.
    """
    folder = model_folder(model)
    identity = ModelIdentity.of(folder)
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    config: Any = AutoConfig.from_pretrained(folder)
    return Written(folder, identity, _template(folder), type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING)


def build(folder: Path, arguments: Mapping[str, Any]) -> Built:
    """Let vLLM build the model without memory for its weights, and find its decoder layers.

    arguments: of vLLM's `EngineArgs`, beside the model.

    Raises:
        StartupError: the layers cannot be found. Whatever vLLM raises for a model that it cannot serve here.
    """
    from vllm.config import set_current_vllm_config
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    config = EngineArgs(model=str(folder), enforce_eager=True, **arguments).create_engine_config()
    dtype: Any = config.model_config.dtype
    with set_current_vllm_config(config), _alone(), set_default_torch_dtype(dtype), torch.device("meta"):
        model = initialize_model(vllm_config=config)
        layers = decoder_layers(model, config)
    (path,) = [name for name, module in model.named_modules() if module is layers]
    return Built(
        model=type(model).__name__,
        own=_own(config),
        dtype=str(dtype).removeprefix("torch."),
        path=path,
        layers=len(layers),
        kinds=tuple(sorted({type(layer).__name__ for layer in layers})),
    )


def _own(config: VllmConfig) -> bool:
    return not config.model_config.architecture.startswith("Transformers")


@contextmanager
def _alone() -> Iterator[None]:
    """A group of processes with this one in it."""
    from vllm.distributed import parallel_state

    with tempfile.TemporaryDirectory() as folder:
        parallel_state.init_distributed_environment(1, 0, f"file://{folder}/meet", 0, "gloo")
        parallel_state.ensure_model_parallel_initialized(1, 1)
        try:
            yield
        finally:
            parallel_state.cleanup_dist_env_and_memory()


def _template(folder: Path) -> str | None:
    """The digest of the chat template that vLLM would take, of the processor before the tokenizer."""
    from transformers import AutoProcessor

    reading: Any = AutoProcessor.from_pretrained(folder)  # the tokenizer, of a model that reads text only
    for holder in (reading, getattr(reading, "tokenizer", None)):
        found = getattr(holder, "chat_template", None)
        if isinstance(found, dict):
            found = found.get("default")
        if found:
            return template_digest(str(found), {})
    return None
