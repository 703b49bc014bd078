"""Turns with pictures of any shape, in any order with text, and videos: asked of an engine, and of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.engine.asking import Answer
from tests.engine.engine import Engine
from tests.engine.reference import Float32, Reference
from trimtab.vectors import AlphaRange, ModelIdentity, Profile, Registry, SteeringVector, save_profile
from trimtab.vectors.manifest import Positions

BOTH_WAYS = AlphaRange(default=1.0, min=-2.0, max=2.0)

Part = str | tuple[int, ...]


@dataclass(frozen=True)
class Shown:
    """One user turn.

    parts: text, a picture of noise (width, height, seed) or a video of it (width, height, seed, frames). steering: see
    `Ask`. chat: through the chat route; else the ids of the templated text. settings: the request's
    mm_processor_kwargs. lora: folder of an adapter. template: another chat template than the model's; chat route only.
    """

    parts: tuple[Part, ...]
    steering: Any = None
    max_tokens: int = 3
    chat: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    lora: str | None = None
    template: str | None = None

    def steered(self, steering: Any) -> Shown:
        return replace(self, steering=steering)

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> Shown:
        parts = tuple(part if isinstance(part, str) else tuple(part) for part in found["parts"])
        return cls(**{**found, "parts": parts})

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

    found = [Shown.of_json(ask) for ask in asks]
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
        ((settings, template),) = {(tuple(ask.settings.items()), ask.template) for ask in found}
        turns = [ask.turn("image_pil") for ask in found]
        more: dict[str, Any] = {"mm_processor_kwargs": dict(settings) or None, "lora_request": lora, "use_tqdm": False}
        more |= {"chat_template": template}
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

    def text(self, ask: Shown) -> str:
        """What the chat template writes."""
        template = self.reader.processor.apply_chat_template
        return str(template(ask.turn(""), add_generation_prompt=True, tokenize=False))

    def _inputs(self, ask: Any) -> dict[str, torch.Tensor]:
        images, videos = ask.media(3), ask.media(4)
        given = {**({"images": [images]} if images else {}), **({"videos": videos} if videos else {})}
        settings = {"add_special_tokens": False, "return_tensors": "pt", **ask.settings}
        return dict(self.reader.processor(text=[self.text(ask)], **given, **settings))

    def _extended(self, ask: Any, tokens: Sequence[int]) -> tuple[dict[str, torch.Tensor], int]:
        inputs, length = super()._extended(ask, tokens)
        if "mm_token_type_ids" in inputs:
            more = inputs["input_ids"].shape[1] - length
            inputs["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, more))
        return inputs, length


def random_profiles(folder: Path, model: Path) -> Registry:
    """Coarse and fine at the first, a middle and the last layer, at positions of every kind, but no two alike."""
    identity = ModelIdentity.of(model)
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Float32:
        return 2 * rng.normal(size=shape).astype(np.float32)

    wide, last = identity.hidden_size, identity.num_layers - 1
    where: Mapping[int, tuple[Positions, Positions]] = {
        0: ("all", "image"),
        last // 2: ("image", "text"),
        last: ("text", "all"),
    }
    for layer, (at, fine_at) in where.items():
        made: dict[str, Any] = {"model": identity, "alpha": BOTH_WAYS}
        coarse = Profile.coarse(f"coarse-{layer}", [SteeringVector(layer, normal(wide))], positions=at, **made)
        rows = {layer: (normal(5, wide), normal(5, wide))}
        fine = Profile.fine(f"fine-{layer}", rows, positions=fine_at, **made)
        for profile in (coarse, fine):
            save_profile(profile, folder / profile.name)
    return Registry.open(folder)


def differences(
    reference: Pictures, registry: Registry, asks: Sequence[Shown], answers: Sequence[Answer]
) -> list[float]:
    """Of each answer: the largest difference of a log-probability from transformers', told the same tokens."""
    found = []
    for ask, answer in zip(asks, answers, strict=True):
        assert answer.prompt == reference.prompt(ask), ask
        profile = None if ask.steering is None else registry[ask.steering["profile"]]
        alpha = 0.0 if ask.steering is None else ask.steering["alpha"]
        expected = reference.logprobs(ask, answer.tokens, profile, alpha)
        found.append(float(np.abs(np.array(answer.logprobs) - expected).max()))
    return found
