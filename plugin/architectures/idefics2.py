"""Idefics2: vLLM's vision tower and Mistral, with transformers' connector between them.

A picture is one tile, or five where it is split (its quarters and the whole). The tower turns a tile into patch
features, the connector turns these into a fixed number of latents, and the latents take the places of image tokens.

Held equal to transformers 5 (models/idefics2/modeling_idefics2.py); what differs between it and vLLM's tower is passed
to the tower: the positions of patches, and a mask that hides patches with any padding in them.

Leans on vllm/model_executor/models/: idefics2_vision_model.py, interfaces.py, module_mapping.py, utils.py, and on
vllm/multimodal: MULTIMODAL_REGISTRY (0.29 to 0.32).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.models.idefics2.modeling_idefics2 import Idefics2Connector
from vllm.model_executor.models.idefics2_vision_model import Idefics2VisionTransformer
from vllm.model_executor.models.interfaces import SupportsLoRA, SupportsMultiModal, SupportsPP
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    WeightsMapper,
    init_vllm_registered_model,
    maybe_prefix,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from .idefics2_inputs import DummyInputs, Info, Processor
from .idefics2_patches import position_ids, whole_patches

if TYPE_CHECKING:
    from vllm.config import VllmConfig

__all__ = ["Idefics2ForConditionalGeneration"]


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=DummyInputs)
class Idefics2ForConditionalGeneration(nn.Module, SupportsMultiModal, SupportsLoRA, SupportsPP):
    """The model of a checkpoint whose architecture has this name."""

    packed_modules_mapping = {  # noqa: RUF012  # declared so by vLLM
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }
    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={
            "model.text_model.": "language_model.model.",
            "lm_head.": "language_model.lm_head.",
            "model.vision_model.": "vision_model.",
            "model.connector.": "connector.",
        }
    )

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        """What stands for a picture where a chat template takes a turn's content as one string."""
        return "<image>"

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config: Any = vllm_config.model_config.hf_config
        self.config = config
        self.configure_mm_token_handling(config.text_config.vocab_size, [config.image_token_id])
        with self._mark_tower_model(vllm_config, "image"):
            self.vision_model = Idefics2VisionTransformer(
                config.vision_config,
                quant_config=vllm_config.quant_config,
                apply_encoder_attention_mask=True,  # the tiles of a picture may differ in size
                prefix=maybe_prefix(prefix, "vision_model"),
            )
            # Made in the dtype that the checkpoint names; the engine may serve another.
            self.connector = Idefics2Connector(config).to(vllm_config.model_config.dtype)
        with self._mark_language_model(vllm_config):
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=config.text_config,
                architectures=["MistralForCausalLM"],
                prefix=maybe_prefix(prefix, "language_model"),
            )
        language_model: Any = self.language_model
        self.make_empty_intermediate_tensors = language_model.make_empty_intermediate_tensors

    def embed_multimodal(self, **kwargs: Any) -> list[torch.Tensor]:
        """The features of each picture, [its tiles * latents, D]; see `Processor` for what comes in."""
        return list(self._features(kwargs)) if "pixel_values" in kwargs else []

    def _features(self, pictures: dict[str, Any]) -> Iterator[torch.Tensor]:
        dtype = self.vision_model.embeddings.patch_embedding.weight.dtype
        side = self.vision_model.embeddings.num_patches_per_side
        for pixels, mask in zip(pictures["pixel_values"], pictures["pixel_attention_mask"], strict=True):
            patches = whole_patches(mask.bool(), self.config.vision_config.patch_size)
            seen = self.vision_model(pixels.to(dtype), patches, position_ids=position_ids(patches, side, dtype))
            yield self.connector(seen, attention_mask=patches.flatten(1)).flatten(0, 1)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: object,
    ) -> Any:
        """The states after the last norm, [T, D], or what the next pipeline rank is handed."""
        if intermediate_tensors is not None:
            inputs_embeds = None
        language_model: Any = self.language_model
        return language_model.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """The logits [N, V] of states [N, D]."""
        language_model: Any = self.language_model
        logits: torch.Tensor | None = language_model.compute_logits(hidden_states)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load a checkpoint's weights; returns the names of those that were."""
        loaded: set[str] = AutoWeightsLoader(self).load_weights(weights, mapper=self.hf_to_vllm_mapper)
        return loaded

    def get_mm_mapping(self) -> MultiModelKeys:
        """Which modules are what, for adapters: these may be put on the language model."""
        return MultiModelKeys.from_string_field(
            language_model="language_model", connector="connector", tower_model="vision_model"
        )
