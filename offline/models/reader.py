"""A model that answers questions greedily and shows its residual stream: the adapter to torch and transformers.

One generation per batch gives everything. The prompts are padded on the left, so the last column of every forward is,
for each sample, the position that predicts its next token; hooks on the decoder blocks keep that column of the asked
layers and nothing else. The picture is encoded once, and no second forward over the answer is needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import transformers

from ..errors import ModelError
from .chat import ChatTemplate
from .loading import first_line, load
from .precision import SPREAD, Precision, device_named, resolved
from .words import Answer
from .writing import Question, Writing

__all__ = ["Precision", "Question", "Reader", "Reading", "UnreadError", "decoder_blocks", "kept_columns"]

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Reading:
    """A greedy answer and the residual stream that wrote it.

    stream: layer -> float32 [P, D], after that decoder block and before the final norm. Row p is position p of
    `trimtab.offline.states.rules`; P is n + 1 for an answer of n tokens that was generated to its end, and at least 1.
    end: the id of the end token that position n predicts; None for an answer that was cut.
    """

    answer: Answer
    stream: dict[int, Float32]
    end: int | None = None


class UnreadError(ModelError):
    """These questions, or one of them, are not read; fewer may be. The message is a reason: "it does not fit …"."""


class Reader(Writing):
    """A loaded model with its processor, ready to be read. Any decoder-only model of transformers will do."""

    def __init__(
        self,
        folder: Path,
        dtype: Precision = "auto",
        device: str | None = None,
        *,
        template: ChatTemplate | None = None,
        base: Path | None = None,
    ) -> None:
        """Load from a folder in the Hub's layout.

        dtype: what the model computes in; "auto" is its own, see `resolved`. In half precision a state depends on its
        batch; only float32 states are those of the sample alone (to about 1e-5). device: "cpu", "cuda", …; None takes
        the GPU where there is one; "auto" spreads the layers over all devices and the host, as accelerate does.
        template: what the server is started with, where that is not the model folder's own. base: folder of the model
        that this one was trained from; see `load`.

        Raises:
            ModelError: no such folder, an unknown architecture, an encoder-decoder, no chat template, no such device.
            FormatError: the folder has no config.json or no safetensors weights.
        """
        self._template = template
        self._spread = device == SPREAD
        target = device_named(device)
        loaded = load(folder, resolved(dtype, folder, target), SPREAD if self._spread else target, base)
        super().__init__(folder, loaded.identity, loaded.tokenizer, loaded.processor, template)
        self.model = loaded.model
        self.device = target  # of a model that is spread, where its first layers are
        self.tokenizer.padding_side = "left"
        self._ends = _end_tokens(self.model, self.tokenizer)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token_id = min(self._ends)
        # A model folder may ask for sampling or a repetition penalty; what is read here is the plain greedy answer.
        self.model.generation_config = transformers.GenerationConfig(
            do_sample=False, eos_token_id=sorted(self._ends), pad_token_id=self.tokenizer.pad_token_id
        )
        # Gemma 3 and PaliGemma attend both ways where their processors say that a picture is. Elsewhere the types are a
        # tokenizer's, which mean nothing: GPT-2 would add an embedding for them.
        parameters = inspect.signature(self.model.forward).parameters
        self._typed = self.processor is not None and "token_type_ids" in parameters
        self.blocks = decoder_blocks(self.model)
        if len(self.blocks) != self.identity.num_layers:
            raise ModelError(f"{folder}: has {len(self.blocks)} decoder blocks and names {self.identity.num_layers}")

    @property
    def dtype(self) -> str:
        """What the model computes in: float32, bfloat16 or float16."""
        return str(self.model.dtype).removeprefix("torch.")

    def like(self, folder: Path) -> Reader:
        """A model that was trained from this one, read alike: on its device, with its dtype and its chat template.

        folder: a model, or adapters only. What it lacks of processor, tokenizer and template is this model's.
        """
        device = SPREAD if self._spread else str(self.device)
        return Reader(folder, cast(Precision, self.dtype), device, template=self._template, base=self.folder)

    def encode(self, questions: Sequence[Question]) -> dict[str, torch.Tensor]:
        """Model inputs of a batch, padded on the left.

        No special tokens are added to what the template wrote: vLLM's chat route adds none either.

        Raises:
            UnreadError: the model's processor does not take one of the questions; a picture too flat, for example.
        """
        prompts = [self.prompt(question) for question in questions]
        try:
            return self._tensors(prompts, questions)
        except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as error:
            raise UnreadError(f"the model's processor refuses it ({first_line(error)})") from error

    def _tensors(self, prompts: list[str], questions: Sequence[Question]) -> dict[str, torch.Tensor]:
        images = [[question.image.convert("RGB")] for question in questions if question.image is not None]
        settings: dict[str, Any] = {"padding": True, "add_special_tokens": False, "return_tensors": "pt"}
        if self.processor is None:
            batch = self.tokenizer(prompts, **settings)
        else:
            batch = self.processor(text=prompts, images=images or None, **settings)
        batch = {name: value.to(self.device) for name, value in batch.items() if isinstance(value, torch.Tensor)}
        if not self._typed:
            batch.pop("token_type_ids", None)
        if "pixel_values" in batch:
            batch["pixel_values"] = batch["pixel_values"].to(self.model.dtype)
        return batch

    @torch.inference_mode()
    def read(
        self,
        questions: Sequence[Question],
        layers: Sequence[int],
        max_new_tokens: int,
        satisfied: Callable[[str], bool] = lambda text: False,
    ) -> list[Reading]:
        """Answer a batch of questions and keep the stream that wrote the answers.

        layers: decoder blocks, 0-based. max_new_tokens: where an answer is cut. satisfied: told an answer's text so
        far, says whether that is enough; the sample then ends there.

        A batch mixes pictures and no pictures only where the model's processor allows it. Float32 states equal those
        of the question alone to about 1e-5.

        Raises:
            UnreadError: they do not fit in memory together, or the model does not take one of them.
        """
        layers = self.check_layers(layers)
        batch = self.encode(questions)
        width = batch["input_ids"].shape[1]
        enough = _Enough(lambda ids: satisfied(self.text(ids)), width)
        with kept_columns(self.blocks, layers) as columns, _named_causes():
            output = self.model.generate(
                **batch,
                # One more than asked for: the last kept token is then fed as well, and its own state exists.
                max_new_tokens=max_new_tokens + 1,
                stopping_criteria=transformers.StoppingCriteriaList([enough]),
            )
        generated = output[:, width:].tolist()
        stream = {layer: torch.stack(columns[layer], dim=1).cpu().numpy() for layer in layers}
        stops = self._ends | {self.tokenizer.pad_token_id}
        readings = []
        for sample, ids in enumerate(generated):
            length = next((at for at, token in enumerate(ids) if token in stops), len(ids))
            answer = self.decode(ids[: min(length, max_new_tokens)])
            states = {layer: stream[layer][sample, : len(answer.tokens) + 1] for layer in layers}
            ended = length == len(answer.tokens) < len(ids) and ids[length] in self._ends and not satisfied(answer.text)
            readings.append(Reading(answer, states, ids[length] if ended else None))
        return readings


def decoder_blocks(model: Any) -> Sequence[torch.nn.Module]:
    """The blocks of a model's text decoder, in order: what vLLM's layers of the same numbers compute.

    They are the list that the decoder holds with as many elements as its configuration has layers, whatever its name.
    Leans on transformers' `get_decoder` and `get_text_config`.

    Raises:
        ModelError: an encoder-decoder, or blocks that cannot be found.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(f"{type(model).__name__} is an encoder-decoder; only decoder-only models can be read")
    decoder, number = model.get_decoder(), model.config.get_text_config(decoder=True).num_hidden_layers
    for part in decoder.children():
        if isinstance(part, torch.nn.ModuleList) and len(part) == number:
            return list(part)
    raise ModelError(f"no decoder blocks found in {type(decoder).__name__}; looked for a list of {number} modules")


@contextmanager
def kept_columns(blocks: Sequence[torch.nn.Module], layers: Sequence[int]) -> Iterator[dict[int, list[torch.Tensor]]]:
    """Within the context, every forward appends the last column, float32 [B, D], of each layer's output.

    A hook on the block, not `hidden_states`: transformers' last entry is already normed.
    """
    columns: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}

    def keep(layer: int) -> Callable[[torch.nn.Module, object, Any], None]:
        def hook(block: torch.nn.Module, inputs: object, output: Any) -> None:
            hidden = output if isinstance(output, torch.Tensor) else output[0]
            if hidden.dim() != 3:
                raise ModelError(f"{type(block).__name__} returns several streams; only models with one can be read")
            columns[layer].append(hidden[:, -1].float())

        return hook

    handles = [blocks[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        yield columns
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _named_causes() -> Iterator[None]:
    """Tell apart what concerns these questions alone, memory and length; any other error of torch ends the run."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise UnreadError("it does not fit in memory") from error
    except RuntimeError as error:
        if "allocate memory" in str(error) or "not enough memory" in str(error):  # torch's CPU allocator
            raise UnreadError("it does not fit in memory") from error
        raise
    except (ValueError, IndexError) as error:
        raise UnreadError(f"the model does not take it ({first_line(error)})") from error


class _Enough(transformers.StoppingCriteria):
    """Ends each sample as soon as its generated ids are enough."""

    def __init__(self, enough: Callable[[list[int]], bool], width: int) -> None:
        self._enough = enough
        self._width = width

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        done = [self._enough(ids) for ids in input_ids[:, self._width :].tolist()]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """All ids that end an answer: the model's own and the tokenizer's, as vLLM takes them."""
    named = model.generation_config.eos_token_id
    ends = set(named if isinstance(named, list) else [named]) | {tokenizer.eos_token_id}
    ends.discard(None)
    if not ends:
        raise ModelError("neither the model nor its tokenizer names an end token; set eos_token in the tokenizer")
    return {int(token) for token in ends}
