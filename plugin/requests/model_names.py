"""`"model": "base:profile"`: steering for clients that can choose a model and cannot send a field.

The profile may have a strength or a version, as in the field (`trimtab.vectors.asked`). Here it is taken out of the
model's name and becomes the field, before anything else reads either.

Leans on vllm/entrypoints/serve/engine/serving.py: `BaseServing._check_model`, the first thing that each serving class
does with its request, with `models` and its `base_model_paths` and `lora_requests`; with the environment variable
VLLM_SKIP_MODEL_NAME_VALIDATION it lets any name pass (0.29 to 0.32).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Iterable
from http import HTTPStatus
from typing import Any

from trimtab.vectors import Registry
from trimtab.vectors.asked import FIELD, Wish, parse, split_model, wish_of
from trimtab.vectors.errors import RequestError, UnknownProfileError, shown

from ..compat.wrapping import wrap
from ..config import SteeringConfig
from . import admission, fields
from .refused import reason_of, tell
from .request import choose

__all__ = ["install", "names_of", "read_model"]

# A batch of chats becomes one of `fields.CLASSES` per chat, and keeps its fields.
_STEERED = (*fields.CLASSES.values(), "BatchChatCompletionRequest")
_GENERATES_NOTHING = ("TokenizeChatRequest", "TokenizeCompletionRequest", "DetokenizeRequest")


def install() -> None:
    """Let every serving class read a profile from the model's name. Safe to call again."""
    from vllm.entrypoints.serve.engine.serving import BaseServing

    wrap(BaseServing, "_check_model", _check_model)


async def _check_model(check: Callable[..., Awaitable[Any]], serving: Any, request: Any) -> Any:
    from vllm import envs

    engine = getattr(serving.models, "engine_client", None)  # a server that only renders prompts has none
    if request.model and engine is not None and SteeringConfig.of(engine.vllm_config) is not None:
        names = names_of(serving.models)
        registry = admission.registry_of(engine.vllm_config)
        if envs.VLLM_SKIP_MODEL_NAME_VALIDATION:
            names += _any_name(request.model, registry or ())
        try:
            read_model(request, names, registry)
        except RequestError as error:
            tell(reason_of(error))
            # A profile that is not there is a model that is not there.
            missing = isinstance(error, UnknownProfileError) and error.param == "model"
            status = HTTPStatus.NOT_FOUND if missing else HTTPStatus(error.status)
            kind = {HTTPStatus.NOT_FOUND: "NotFoundError", HTTPStatus.BAD_REQUEST: "BadRequestError"}
            return serving.create_error_response(str(error), kind.get(status, status.phrase), status, error.param)
    return await check(serving, request)


def names_of(models: Any) -> list[str]:
    """The names of all models that vLLM's `OpenAIServingModels` serves, adapters included."""
    return [*(base.name for base in models.base_model_paths), *models.lora_requests]


def _any_name(model: str, profiles: Container[str]) -> list[str]:
    """The name of a model that is not checked, where a loaded profile stands after it."""
    name, _, wish = model.rpartition(":")
    return [name] if wish.partition("@")[0] in profiles else []


def read_model(request: Any, served: Iterable[str], registry: Registry | None) -> None:
    """Turn "MODEL:PROFILE" in a request's `model` into its model and its field, in place.

    request: one of vLLM's, or a subclass. served: the names of all models, adapters included.

    Raises:
        UnknownProfileError: no such profile is loaded.
        RequestError: the profile cannot be read, the field asks for something else, or the request's route does not
            serve steering.
    """
    found = split_model(request.model, served)
    if found is None:
        return
    model, wish = found
    if not _is_any_of(request, _GENERATES_NOTHING):
        _steer(request, wish, registry)
    request.model = model


def _steer(request: Any, wish: str, registry: Registry | None) -> None:
    if not _is_any_of(request, _STEERED):
        raise RequestError(
            f"this route does not serve steering, which model {shown(request.model)} asks for; name the model alone, "
            "or use a route that does (/v1/chat/completions)",
            param="model",
        )
    try:
        chosen = choose(parse(wish), registry)
    except RequestError as error:
        error.param = "model"
        raise
    said = wish_of(getattr(request, FIELD, None))
    if said == Wish():
        setattr(request, FIELD, wish)
    elif said == Wish(unit=said.unit):
        setattr(request, FIELD, {"profile": wish, "unit": said.unit})
    elif said.experiment is not None or _served(chosen) != _served(choose(said.profiles or (), registry)):
        raise RequestError(
            f"model asks for {shown(wish)} and {FIELD!r} for something else; ask in one of the two", param=FIELD
        )


def _served(chosen: Any) -> list[tuple[str, float]]:
    return [(profile.name, alpha) for profile, alpha in chosen]


def _is_any_of(request: Any, names: Iterable[str]) -> bool:
    return not {kind.__name__ for kind in type(request).__mro__}.isdisjoint(names)
