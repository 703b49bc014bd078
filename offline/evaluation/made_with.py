"""Whether the served profiles were made with the prompt that an evaluation asks; with another, they may do less."""

from __future__ import annotations

from typing import Any

import httpx

from trimtab.vectors.asked import parse

from .endpoint import Endpoint

__all__ = ["prompt_doubts"]

_SECONDS = 10.0


def prompt_doubts(endpoint: Endpoint, steering: Any, prompt: str) -> list[str]:
    """A sentence for each profile of `steering` that was made with another prompt, as the server's cards say.

    A server that has no such cards, or whose cards do not say it, raises no doubt.
    """
    found = []
    for name in dict.fromkeys(one.profile for one in parse(steering)):
        made = _prompt_of(endpoint, name)
        if made is not None and made != prompt:
            found.append(
                f"the profile {name!r} was made with the prompt {_short(made)}, and is evaluated with "
                f"{_short(prompt)}; ask with the same --prompt unless the difference is what you want to measure"
            )
    return found


def _prompt_of(endpoint: Endpoint, name: str) -> str | None:
    try:
        reply = httpx.get(
            f"{endpoint.base_url.rstrip('/')}/steering/profiles/{name}",
            headers={"Authorization": f"Bearer {endpoint.api_key}"},
            timeout=_SECONDS,
        )
        card = reply.json() if reply.is_success else None
    except (httpx.HTTPError, ValueError):  # the run itself says what is wrong with an endpoint; this is only a hint
        return None
    said = card.get("prompt") if isinstance(card, dict) else None
    return said if isinstance(said, str) else None


def _short(prompt: str) -> str:
    return repr(prompt if len(prompt) <= 80 else f"{prompt[:79]}…")
