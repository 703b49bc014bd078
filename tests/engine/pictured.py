"""Turns with pictures of any shape, in any order with text, and videos: asked of an engine, and of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.engine.asking import Answer
from tests.engine.engine import Engine
from tests.engine.reference import Reference

Part = str | tuple[int, ...]


@dataclass(frozen=True)
class Shown:
    """One user turn.

    parts: text, a picture of noise (width, height, seed) or a video of it (width, height, seed, frames). steering: see
    `Ask`. chat: through the chat route; else the ids of the templated text. settings: the request's
    mm_processor_kwargs. lora: folder of an adapter.
    """

    parts: tuple[Part, ...]
    steering: Any = None
    max_tokens: int = 3
    chat: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    lora: str | None = None

    def steered(self, steering: Any) -> Shown:
        return replace(self, steering=steering)

    def media(self, length: int) -> list[Any]:
        """Pictures (length 3) or videos (length 4), in their order."""
        return [_noise(*part) for part in self.parts if not isinstance(part, str) and len(part) == length]

    def turn(self, picture: str) -> list[Any]:
        """For a chat template. picture: under which key a picture is given; "" gives none."""
        content: list[dict[str, Any]] = []
        for part in self.parts:
            if isinstance(part, str):
                content.append({"type": "text", "text": part})
            elif len(part) == 4:
                content.append({"type": "video"})
            else:
                content.append({"type": picture, picture: _noise(*part)} if picture else {"type": "image"})
        return [{"role": "user", "content": content}]


def _noise(width: int, height: int, seed: int, frames: int = 0) -> Any:
    """A picture, or a video uint8 [frames, height, width, 3]: blocks of colour, which patches do not average away."""
    rng = np.random.default_rng(seed)
    shape = (max(frames, 1), -(-height // 16), -(-width // 16), 3)
    drawn = rng.integers(0, 256, shape, dtype=np.uint8).repeat(16, 1).repeat(16, 2)[:, :height, :width]
    return drawn if frames else Image.fromarray(drawn[0])


def show(engine: Engine, asks: Sequence[Shown]) -> list[Answer]:
    """The answers to a batch, each with the whole distribution of every step."""
    return [Answer(**reply) for reply in engine.call("show", asks=[vars(ask) for ask in asks])]


def served(llm: Any, asks: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The engine's side: the outputs of one batch, all through one route."""
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    found = [
        Shown(**{**ask, "parts": tuple(p if isinstance(p, str) else tuple(p) for p in ask["parts"])}) for ask in asks
    ]
    params = [
        SamplingParams(
            temperature=0,
            max_tokens=ask.max_tokens,
            ignore_eos=True,
            logprobs=-1,
            detokenize=False,
            extra_args=None if ask.steering is None else {"steering": ask.steering},
        )
        for ask in found
    ]
    lora = [None if ask.lora is None else LoRARequest("adapter", 1, ask.lora) for ask in found]
    (chat,) = {ask.chat for ask in found}
    if chat:
        (settings,) = {tuple(ask.settings.items()) for ask in found}
        turns = [ask.turn("image_pil") for ask in found]
        more = {"mm_processor_kwargs": dict(settings) or None, "lora_request": lora, "use_tqdm": False}
        return list(llm.chat(turns, params, **more))
    prompts = [_prompt(llm, ask) for ask in found]
    return list(llm.generate(prompts, params, lora_request=lora, use_tqdm=False))


def _prompt(llm: Any, ask: Shown) -> dict[str, Any]:
    tokenizer = llm.get_tokenizer()
    text = tokenizer.apply_chat_template(ask.turn(""), add_generation_prompt=True, tokenize=False)
    media = {"image": ask.media(3), "video": ask.media(4)}
    return {
        "prompt_token_ids": tokenizer.encode(text, add_special_tokens=False),
        "multi_modal_data": {kind: found for kind, found in media.items() if found},
        **({"mm_processor_kwargs": dict(ask.settings)} if ask.settings else {}),
    }


class Pictures(Reference):
    """`Reference` for `Shown`: transformers' own processor, whatever it is shown."""

    def positions(self, ask: Any, kind: str, tokens: int = 0) -> list[int]:
        prompt = self.prompt(ask)
        n, config = len(prompt), self.reader.model.config
        seen = {config.image_token_id, getattr(config, "video_token_id", config.image_token_id)}
        image = [p for p in range(n) if prompt[p] in seen]
        if kind == "image":
            return image
        return [p for p in range(n) if p not in image] if kind == "text" else super().positions(ask, kind, tokens)

    def _inputs(self, ask: Any) -> dict[str, torch.Tensor]:
        processor = self.reader.processor
        text = processor.apply_chat_template(ask.turn(""), add_generation_prompt=True, tokenize=False)
        images, videos = ask.media(3), ask.media(4)
        given = {**({"images": [images]} if images else {}), **({"videos": videos} if videos else {})}
        return dict(processor(text=[text], add_special_tokens=False, return_tensors="pt", **given, **ask.settings))

    def _extended(self, ask: Any, tokens: Sequence[int]) -> tuple[dict[str, torch.Tensor], int]:
        inputs, length = super()._extended(ask, tokens)
        if "mm_token_type_ids" in inputs:
            more = inputs["input_ids"].shape[1] - length
            inputs["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, more))
        return inputs, length
