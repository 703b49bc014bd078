"""A vector added after three layers, by the engine and in transformers, each in a process of its own.

transformers goes first: its states say how large a vector has to be, and vLLM's Transformers backend changes classes of
transformers in its process.

Leans on transformers' `get_decoder` and `get_text_config`, and on vllm/entrypoints/llm.py: LLM (0.29 to 0.32).
"""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from trimtab.vectors import ModelIdentity, Profile, SteeringVector, save_profile
from trimtab.vectors.errors import TrimtabError

__all__ = ["TrialError", "run"]

Float32 = npt.NDArray[np.float32]
Found = dict[int | None, Float32]

RELATIVE = 0.5
"""Length of the vector, in lengths of a state after its layer."""


class TrialError(TrimtabError):
    """transformers or the engine cannot run the model; the message is what it says."""


def run(
    folder: Path, identity: ModelIdentity, dtype: str, arguments: Mapping[str, Any], scratch: Path, prompt: str
) -> tuple[Found, Found]:
    """The log-probabilities [V] of the token after a prompt: served, and expected.

    Of each, by layer of the addition; None for nothing added. arguments: of vLLM's `LLM`, beside model and dtype.
    scratch: a folder for the vectors.

    Raises:
        TrialError: transformers or the engine ended with an error.
    """
    layers = sorted({0, identity.num_layers // 2, identity.num_layers - 1})
    ids, expected, vectors = _elsewhere(_expect, str(folder), dtype, layers, prompt)
    for layer, vector in vectors.items():
        profile = Profile.coarse(f"after-{layer}", [SteeringVector(layer, vector)], model=identity, positions="all")
        save_profile(profile, scratch / profile.name)
    served = _elsewhere(_serve, str(folder), dtype, layers, ids, str(scratch), dict(arguments))
    return served, expected


def _expect(folder: str, dtype: str, layers: list[int], prompt: str) -> tuple[list[int], Found, dict[int, Float32]]:
    import torch
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    config: Any = transformers.AutoConfig.from_pretrained(folder)
    sees = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    kind: Any = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
    place = {"device_map": "auto"} if torch.cuda.is_available() else {}
    model: Any = kind.from_pretrained(folder, dtype=getattr(torch, dtype), **place).eval()
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    ids: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    blocks = _blocks(model)
    sizes: dict[int, float] = {}

    def ask(hooks: Mapping[int, Any]) -> Float32:
        handles = [blocks[layer].register_forward_hook(hook) for layer, hook in hooks.items()]
        try:
            logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0, -1]
        finally:
            for handle in handles:
                handle.remove()
        found: Float32 = torch.log_softmax(logits.float(), dim=-1).cpu().numpy()
        return found

    def sized(layer: int) -> Any:
        def hook(block: Any, inputs: Any, output: Any) -> None:
            h = output if isinstance(output, torch.Tensor) else output[0]
            sizes[layer] = float(h.float().norm(dim=-1).median())

        return hook

    def adding(vector: Float32) -> Any:
        def hook(block: Any, inputs: Any, output: Any) -> Any:
            h = output if isinstance(output, torch.Tensor) else output[0]
            changed = (h.float() + torch.from_numpy(vector).to(h.device)).to(h.dtype)
            return changed if isinstance(output, torch.Tensor) else (changed, *output[1:])

        return hook

    with torch.inference_mode():
        found: Found = {None: ask({layer: sized(layer) for layer in layers})}
        rng = np.random.default_rng(0)
        vectors = {}
        for layer in layers:
            drawn = rng.normal(size=config.get_text_config(decoder=True).hidden_size)
            vectors[layer] = (RELATIVE * sizes[layer] / np.linalg.norm(drawn) * drawn).astype(np.float32)
            found[layer] = ask({layer: adding(vectors[layer])})
    return ids, found, vectors


def _blocks(model: Any) -> Any:
    """The decoder blocks in transformers: the list that the decoder holds with as many elements as it has layers."""
    from torch.nn import ModuleList

    decoder, number = model.get_decoder(), model.config.get_text_config(decoder=True).num_hidden_layers
    for part in decoder.children():
        if isinstance(part, ModuleList) and len(part) == number:
            return part
    raise TrialError(f"no list of {number} decoder blocks found in transformers' {type(decoder).__name__}")


def _serve(
    folder: str, dtype: str, layers: list[int], ids: list[int], profiles: str, arguments: dict[str, Any]
) -> Found:
    from vllm import LLM, SamplingParams, TokensPrompt

    from ..config import engine_args

    settings: dict[str, Any] = {
        "dtype": dtype,
        "max_model_len": 256,
        "max_num_seqs": 8,
        "enforce_eager": True,
        "max_logprobs": -1,
        **arguments,
        **engine_args(profiles, model=folder),
    }
    llm = LLM(folder, **settings)
    found: Found = {}
    for layer in (None, *layers):
        steering = None if layer is None else {"steering": f"after-{layer}"}
        params = SamplingParams(max_tokens=1, temperature=0, logprobs=-1, detokenize=False, extra_args=steering)
        (answer,) = llm.generate([TokensPrompt(prompt_token_ids=ids)], params, use_tqdm=False)
        (step,) = cast(list[dict[int, Any]], answer.outputs[0].logprobs)
        found[layer] = np.array([step[token].logprob for token in sorted(step)], np.float32)
    return found


def _elsewhere(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` returns in a fresh process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    try:
        found, error = ours.recv()
    except EOFError:
        found, error = None, "its process ended without a word"
    process.join()
    if error is not None:
        raise TrialError(error)
    return found


def _report(answer: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        answer.send((work(*arguments), None))
    except Exception as error:
        traceback.print_exc()
        answer.send((None, str(error) or type(error).__name__))
