"""From a folder to a model that runs: a whole model, a training's checkpoint, or adapters on their base model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from safetensors import SafetensorError
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from trimtab.vectors import ModelIdentity
from trimtab.vectors.errors import FormatError

from ..errors import ModelError
from .chat import ChatTemplate
from .writing import Writing

__all__ = ["Loaded", "first_line", "is_adapter", "load", "load_writing"]

_ADAPTER = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_TOKENIZER = ("tokenizer_config.json", "tokenizer.json")
_PROCESSOR = ("processor_config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class Loaded:
    """A model on its device, ready to answer. processor: None for a model that reads text only."""

    identity: ModelIdentity
    model: Any
    tokenizer: Any
    processor: Any


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds adapters only (PEFT's layout) and no model of its own."""
    return (folder / _ADAPTER).is_file() and not (folder / "config.json").is_file()


def load(folder: Path, dtype: str, device: torch.device | Literal["auto"], base: Path | None = None) -> Loaded:
    """Load a model from a folder in the Hub's layout.

    dtype: torch's name of it. device: "auto" spreads the layers over all devices and the host, as accelerate does.
    base: the model that it was trained from. Adapters are put on its weights, and its tokenizer, processor and chat
    template serve where `folder` has none.

    Raises:
        ModelError: no such folder, adapters without `base`, or what transformers or peft cannot load.
        FormatError: the folder has no config.json or no safetensors weights.
    """
    _check_folder(folder)
    adapted = is_adapter(folder)
    if adapted and base is None:
        raise ModelError(f"{folder}: holds adapters only; merge them into their model and give the merged folder")
    weights = base if adapted and base is not None else folder
    identity = _adapted(ModelIdentity.of(weights), folder) if adapted else ModelIdentity.of(folder)
    try:
        sees = _sees(weights)
        kind: Any = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
        place: dict[str, Any] = {"device_map": "auto"} if device == "auto" else {}
        if _caps_attention(weights):
            place["attn_implementation"] = "eager"
        model: Any = kind.from_pretrained(weights, dtype=getattr(torch, dtype), **place)
        if adapted:
            model = _with_adapter(model, folder)
        processor = _processor(sees, folder, base)
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: cannot be loaded by transformers ({first_line(error)})") from error
    tokenizer = processor.tokenizer if sees else processor
    placed = model if device == "auto" else model.to(device)
    return Loaded(identity, placed.eval(), tokenizer, processor if sees else None)


def load_writing(folder: Path, template: ChatTemplate | None = None) -> Writing:
    """What a whole model's folder says of its tokenizer, processor and chat template; no weights are loaded.

    Raises:
        ModelError, FormatError: as `load`.
    """
    _check_folder(folder)
    identity = ModelIdentity.of(folder)
    try:
        sees = _sees(folder)
        processor = _processor(sees, folder, None)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(f"{folder}: cannot be loaded by transformers ({first_line(error)})") from error
    tokenizer = processor.tokenizer if sees else processor
    return Writing(folder, identity, tokenizer, processor if sees else None, template)


def _sees(folder: Path) -> bool:
    """Whether a model takes pictures."""
    return type(transformers.AutoConfig.from_pretrained(folder)) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING


def _caps_attention(folder: Path) -> bool:
    """Whether a model bounds its attention logits, as Gemma 2 does; transformers' default attention does not."""
    text = transformers.AutoConfig.from_pretrained(folder).get_text_config(decoder=True)
    return bool(getattr(text, "attn_logit_softcapping", None))


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError(
            f"{folder}: is no folder; give a model folder, and fetch one from the Hub first with "
            "`hf download <name> --local-dir <folder>`"
        )


def _processor(sees: bool, folder: Path, base: Path | None) -> Any:
    """The processor (the tokenizer, for a model that reads text only) of the first folder that has one."""
    kind: Any = transformers.AutoProcessor if sees else transformers.AutoTokenizer
    if base is None:
        return kind.from_pretrained(folder)
    # A training that was given a tokenizer alone saves it alone: then the base's processor, which has its own.
    needed = [_TOKENIZER, _PROCESSOR] if sees else [_TOKENIZER]
    if not all(any((folder / name).is_file() for name in names) for names in needed):
        return kind.from_pretrained(base)
    found = kind.from_pretrained(folder)
    if not _template(found):
        found.chat_template = _template(kind.from_pretrained(base))
    return found


def _template(processor: Any) -> Any:
    """The chat template of a processor or a tokenizer, or of the tokenizer in it."""
    return processor.chat_template or getattr(getattr(processor, "tokenizer", None), "chat_template", None)


def _with_adapter(model: Any, folder: Path) -> Any:
    """The model with a PEFT adapter merged into its weights."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ModelError(f"{folder}: holds adapters, which need peft; run: pip install 'trimtab[offline]'") from error
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), use_safetensors=True)
        return adapted.merge_and_unload(safe_merge=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: its adapters do not fit the base model ({first_line(error)})") from error


def _adapted(base: ModelIdentity, folder: Path) -> ModelIdentity:
    """The identity of a model with adapters merged in: its base's form, and a fingerprint of both weights."""
    try:
        json.loads((folder / _ADAPTER).read_text("utf-8"))
        digest = hashlib.sha256((base.fingerprint or "").encode() + (folder / _ADAPTER).read_bytes())
        digest.update((folder / _ADAPTER_WEIGHTS).read_bytes())
    except (OSError, ValueError) as error:
        raise FormatError(f"{folder.name}: its adapters have no {_ADAPTER_WEIGHTS} or no readable config") from error
    return base.model_copy(update={"fingerprint": f"adapted-sha256:{digest.hexdigest()}"})


def first_line(error: BaseException) -> str:
    """What an error says first, for a sentence: at most 200 characters that can be shown."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return "".join(letter for letter in line if letter.isprintable())[:200]
