"""What a refusal needs to come before the answer begins.

vLLM's `generate` checks a request when its first output is asked for. A streaming answer has its status line and its
headers by then, so a refusal could only follow as an event in it. What admission will say is known as soon as the
prompt is rendered, and is said there.

What can be told without the prompt is said before it is rendered, so that its pictures are not taken for sent (see
`sent_pictures`).

A response of /v1/responses asks the engine inside of its stream, so the prompt of its first turn is looked at before.

Leans on vllm/renderers/online_renderer.py: OnlineRenderer.preprocess_chat and preprocess_completion, which render for
all serving classes and get the request first; and on vllm/v1/engine/async_llm.py: AsyncLLM.generate, which is called
with a rendered prompt, of the form of vllm/inputs/engine.py, by all of them; and on vllm/entrypoints/openai/responses
/serving.py: OpenAIServingResponses._generate_with_builtin_tools, called before the stream begins (0.29 to 0.32).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

from trimtab.vectors.asked import wish_of

from ..compat.wrapping import wrap
from ..config import SteeringConfig
from . import admission, fields, model_names
from .decided import Chosen, entered_by, record
from .dose import check_dose, largest_addition
from .kv import WIRE_KEY
from .lost import raise_if_lost
from .positions import pictures
from .request import resolve
from .sent_pictures import unsend

__all__ = ["check_rendered", "check_request", "install"]


def install() -> None:
    """Let a front end read the field from every request class, and refuse before it begins to answer."""
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
    from vllm.renderers.online_renderer import OnlineRenderer
    from vllm.v1.engine.async_llm import AsyncLLM

    fields.install()
    model_names.install()
    wrap(OnlineRenderer, "preprocess_chat", _render)
    wrap(OnlineRenderer, "preprocess_completion", _render)
    wrap(AsyncLLM, "generate", _generate)
    wrap(OpenAIServingResponses, "_generate_with_builtin_tools", _generate_turns)


def _render(original: Callable[..., Any], renderer: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
    if hasattr(request, "to_sampling_params"):  # else its answer is not generated
        check_request(request, renderer.renderer.config)
    return original(renderer, request, *args, **kwargs)


def check_request(request: Any, vllm_config: Any) -> None:
    """Refuse what admission would refuse whatever the prompt is, and beam search.

    request: one of `fields.CLASSES`. vllm_config: of the engine that it is rendered for.

    Raises:
        VLLMValidationError: a 400 over HTTP.
    """
    if SteeringConfig.of(vllm_config) is None:
        return
    found = record()
    if found is not None and found.request is None:
        found.request = request
    with admission.refusals():
        chosen = admission.chosen_for(wish_of(fields.asked_in(request)), vllm_config)
        check_dose(chosen, largest_addition(vllm_config.model_config.dtype))
        # In an experiment, beams are refused in its unsteered arms as well.
        if (chosen or entered_by(chosen)) and getattr(request, "use_beam_search", False):
            raise fields.no_beams()


# The names are vLLM's, because callers of its Python API write them out.
def _generate(
    generate: Callable[..., Any], engine: Any, prompt: Any, sampling_params: Any, *args: Any, **kwargs: Any
) -> Any:
    extra_args = getattr(sampling_params, "extra_args", None) or {}
    asks = admission.ASKED_KEY in extra_args or WIRE_KEY in extra_args
    chosen: Chosen = ()
    if asks or SteeringConfig.of(engine.vllm_config) is not None:
        chosen = check_rendered(engine, prompt, extra_args)
    outputs = generate(engine, prompt, sampling_params, *args, **kwargs)
    return raise_if_lost(outputs) if asks or chosen else outputs


def _generate_turns(generate: Callable[..., Any], serving: Any, *args: Any, **kwargs: Any) -> Any:
    params = kwargs["sampling_params"]
    if SteeringConfig.of(serving.engine_client.vllm_config) is not None:
        check_rendered(serving.engine_client, kwargs["engine_input"], params.extra_args or {})
    return generate(serving, *args, **kwargs)


def check_rendered(engine: Any, prompt: Any, extra_args: Mapping[str, Any]) -> Chosen:
    """Refuse what admission would refuse, and say what it will choose; a prompt that is not rendered is left to it.

    Raises:
        VLLMValidationError: a 400 over HTTP.
    """
    if not isinstance(prompt, Mapping) or "type" not in prompt:
        return ()
    config = engine.vllm_config
    try:
        with admission.refusals():
            chosen = admission.chosen_for(admission.asked_in(extra_args), config)
            check_dose(chosen, largest_addition(config.model_config.dtype))
            if chosen:
                spans = pictures(chain.from_iterable(prompt.get("mm_placeholders", {}).values()))
                tokens = prompt["prompt_embeds"] if prompt["type"] == "embeds" else prompt["prompt_token_ids"]
                resolve(chosen, prompt_length=len(tokens), pictures=spans)
            return chosen
    except Exception:
        hashes = chain.from_iterable(prompt.get("mm_hashes", {}).values())
        unsend(engine.renderer.mm_processor_cache, hashes)
        raise
