"""Idefics2's pictures and prompts on their way into the model, as transformers' processor prepares them.

A prompt has one <image> per picture. transformers puts a token around each (<fake_token_around_image>), writes as many
<image> as there are features, and tokenises afterwards. vLLM tokenises first; so `Processor` does the same to ids.

Leans on vllm/multimodal/processing: BaseProcessingInfo, BaseDummyInputsBuilder and BaseMultiModalProcessor with its
methods _postprocess_prompt and _postprocess_hf_mm_data, and on vllm/multimodal/inputs.py: MultiModalFieldConfig
(0.29 to 0.32).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import BatchFeature
from transformers.models.idefics2.processing_idefics2 import Idefics2Processor
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
    PromptUpdateDetails,
)

from .idefics2_prompt import spaced, surrounded

__all__ = ["DummyInputs", "Info", "Processor"]


class Info(BaseProcessingInfo):
    """What a picture takes in a prompt."""

    def get_hf_processor(self, **kwargs: object) -> Any:
        """transformers' processor, with a request's own settings where it has any."""
        return self.ctx.get_hf_processor(Idefics2Processor, **kwargs)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Any number of pictures per prompt."""
        return {"image": None}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """Positions that a picture takes between the two tokens around it."""
        return {"image": len(self.between(5 if self.get_hf_processor().image_processor.do_image_splitting else 1))}

    def between(self, tiles: int) -> list[int]:
        """The ids of a picture of so many tiles, between the two tokens around it."""
        image, around = self.marks()
        features = [image] * self.get_hf_config().perceiver_config.resampler_n_latents
        return [*features, *[around, *features] * (tiles - 1)]

    def marks(self) -> tuple[int, int]:
        """The ids of <image> and <fake_token_around_image>."""
        processor = self.get_hf_processor()
        return processor.image_token_id, processor.tokenizer.convert_tokens_to_ids(processor.fake_image_token)


class DummyInputs(BaseDummyInputsBuilder[Info]):
    """The largest pictures there are, by which vLLM measures its memory."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        """One <image> per picture."""
        return str(self.info.get_hf_processor().image_token) * mm_counts.get("image", 0)

    def get_dummy_mm_data(
        self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Squares as large as a tile can be."""
        edge = self.info.get_hf_processor().image_processor.size["longest_edge"]
        count, options = mm_counts.get("image", 0), mm_options.get("image")
        return {"image": self._get_dummy_images(width=edge, height=edge, num_images=count, overrides=options)}


class Processor(BaseMultiModalProcessor[Info]):
    """Each picture becomes `pixel_values` [tiles, 3, H, W] and `pixel_attention_mask` [tiles, H, W], 0 for padding."""

    def _postprocess_prompt(self, prompt: list[int]) -> list[int]:
        image, around = self.info.marks()
        tokenizer = self.info.get_hf_processor().tokenizer
        return spaced(surrounded(prompt, image, around), around, tokenizer)

    def _postprocess_hf_mm_data(
        self, mm_data: Mapping[str, Any], hf_processor_mm_kwargs: Mapping[str, object], processed_data: BatchFeature
    ) -> BatchFeature:
        """Part the pictures of a prompt again, and take away what pads one to the size of another.

        Otherwise a picture would differ with those beside it, and vLLM's cache keeps each by itself.
        """
        if "pixel_values" not in processed_data:
            return processed_data
        pixels = processed_data["pixel_values"][0]
        masks = processed_data.get("pixel_attention_mask")  # none where a request turns padding off
        masks = torch.ones_like(pixels[:, 0], dtype=torch.int64) if masks is None else masks[0]
        patch = self.info.get_hf_config().vision_config.patch_size
        each = []
        for tiles, mask in zip(*(found.chunk(len(mm_data["images"])) for found in (pixels, masks)), strict=True):
            height, width = (int(mask.any(dim).any(0).sum()) for dim in (2, 1))
            if min(height, width) < patch:
                raise ValueError(
                    f"a picture of {width} x {height} pixels is smaller than one patch, {patch} x {patch}; leave "
                    "do_resize and size of mm_processor_kwargs as the model has them"
                )
            each.append((tiles[..., :height, :width], mask[:, :height, :width]))
        pixel_values, attention_masks = zip(*each, strict=True)
        return BatchFeature({"pixel_values": list(pixel_values), "pixel_attention_mask": list(attention_masks)})

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        return {name: MultiModalFieldConfig.batched("image") for name in ("pixel_values", "pixel_attention_mask")}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[PromptReplacement]:
        image, _ = self.info.marks()

        def details(number: int) -> PromptUpdateDetails:
            # As many as there are, not as many as there should be: a request may turn splitting on or off.
            tiles = len(out_mm_kwargs["image"][number]["pixel_values"].data)
            return PromptUpdateDetails.select_token_id(self.info.between(tiles), image)

        return [PromptReplacement(modality="image", target=[image], replacement=details)]
