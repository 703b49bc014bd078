"""The one place that every request passes with its prompt tokenised: HTTP doors and `LLM.generate` alike.

`engine` calls it after vLLM's `InputProcessor.process_inputs`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from trimtab.vectors import Registry
from trimtab.vectors.asked import FIELD, NONE, Wish, wish_of
from trimtab.vectors.errors import RequestError

from ..config import SteeringConfig, open_registry
from .decided import Chosen, once
from .dose import check_dose
from .kv import WIRE_KEY
from .positions import pictures
from .refused import reason_of, tell
from .request import choose, resolve

__all__ = [
    "ASKED_KEY",
    "admit",
    "asked_in",
    "by_wish",
    "choosers",
    "chosen_for",
    "mentions_steering",
    "no_experiments",
    "observers",
    "refusals",
    "registry_of",
    "registry_source",
    "settled",
]

ASKED_KEY = FIELD
"""Where `SamplingParams.extra_args` carries what a caller asks for."""

observers: list[Callable[[str], None]] = []
"""Told the name of each profile of each request that is admitted, and NONE for one that is not steered."""

settled: list[Callable[[Chosen], None]] = []
"""Told what each request that is admitted gets."""

_KEYS = frozenset({ASKED_KEY, WIRE_KEY})


def mentions_steering(request: Any) -> bool:
    """Whether an `EngineCoreRequest` asks for steering, or pretends to have been given it."""
    params = request.sampling_params
    return params is not None and bool(params.extra_args) and not params.extra_args.keys().isdisjoint(_KEYS)


def registry_of(vllm_config: Any) -> Registry | None:
    """The profiles that requests of an engine may name now; None for an engine without any.

    Raises:
        RequestError: 503 where that cannot be told.
    """
    return registry_source[-1](vllm_config)


def _as_started(vllm_config: Any) -> Registry | None:
    config = SteeringConfig.of(vllm_config)
    return None if config is None else open_registry(config, vllm_config)


registry_source: list[Callable[[Any], Registry | None]] = [_as_started]
"""The last one answers `registry_of`. `engine` adds the one that follows changes, which lies above this package."""


def admit(request: Any, choose: Callable[[Wish], Chosen], *, most: float = math.inf) -> Chosen | None:
    """Replace what an `EngineCoreRequest` asks for by its resolved form, in place, and tell the observers.

    choose: see `chosen_for`. most: the largest addition that the served dtype bears, see `dose`.

    Returns:
        What the request gets; None where it generates nothing.

    Raises:
        VLLMValidationError: a 400 over HTTP; nothing has been scheduled yet.
    """
    params = request.sampling_params
    if params is None:  # nothing is generated
        return None
    with refusals():
        asked = asked_in(params.extra_args or {})
        chosen = choose(asked)
        check_dose(chosen, most)
        # The caller's dictionary may be shared by many requests: leave it as it is.
        extra_args = {key: value for key, value in (params.extra_args or {}).items() if key != ASKED_KEY}
        if chosen:
            if request.resumable:
                raise RequestError("steering is not served on resumable (streaming-input) requests")
            spans = pictures(feature.mm_position for feature in request.mm_features or ())
            resolved = resolve(chosen, prompt_length=prompt_length(request), pictures=spans)
            if resolved.parts:
                extra_args[WIRE_KEY] = resolved.to_wire()
    if mentions_steering(request) or chosen:
        params.extra_args = extra_args or None
    for name in [profile.name for profile, _ in chosen] or [NONE]:
        for observer in observers:
            observer(name)
    for settle in settled:
        settle(chosen)
    return chosen


def by_wish(asks: Wish, vllm_config: Any) -> Chosen:
    """What a request gets where nobody but itself decides.

    Raises:
        RequestError: as `choose`; or it asks for an experiment, of which there are none.
    """
    if asks.experiment is not None:
        raise no_experiments()
    return choose(asks.profiles, registry_of(vllm_config)) if asks.profiles else ()


def no_experiments() -> RequestError:
    """The error for a request that asks for an experiment where there are none."""
    return RequestError(
        "there are no experiments on this server; leave `experiment` out, or start it with --steering-experiments FILE",
        param="steering.experiment",
    )


choosers: list[Callable[[Wish, Any], Chosen]] = [by_wish]
"""The last one decides. `engine` adds the one that asks the access policy, which lies above this package."""


def chosen_for(asks: Wish, vllm_config: Any) -> Chosen:
    """The profiles and strengths that a request of an engine gets, see `decided`.

    Raises:
        RequestError: it asks for what it cannot have.
    """
    return once(asks, lambda: choosers[-1](asks, vllm_config))


def asked_in(extra_args: Mapping[str, Any]) -> Wish:
    """What `SamplingParams.extra_args` asks for.

    Raises:
        RequestError: it cannot be read, or the resolved form was sent.
    """
    if WIRE_KEY in extra_args:
        raise RequestError(f"extra_args[{WIRE_KEY!r}] is reserved; ask with extra_args[{ASKED_KEY!r}]")
    return wish_of(extra_args.get(ASKED_KEY))


@contextmanager
def refusals(reason: str | None = None, *, counted: bool = True) -> Iterator[None]:
    """Turn a `RequestError` into the error of vLLM's that has its status over HTTP: 400, or another that it names.

    reason: one of `refused.REASONS`; None for that of the error. counted: False where nothing was to be generated.
    """
    try:
        yield
    except RequestError as error:
        from vllm.exceptions import GracefulHTTPError, VLLMValidationError

        if counted:
            tell(reason or reason_of(error))
        if error.status != HTTPStatus.BAD_REQUEST:
            raise GracefulHTTPError(str(error), HTTPStatus(error.status)) from error
        raise VLLMValidationError(str(error), parameter=error.param) from error


def prompt_length(request: Any) -> int:
    """Positions that the prompt takes, image placeholders included."""
    tokens = request.prompt_token_ids if request.prompt_token_ids is not None else request.prompt_embeds
    return len(tokens)
