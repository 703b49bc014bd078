"""What an attempt at a request failed of: whether it may pass, when to try again, and what the server said."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import openai

__all__ = ["may_pass", "reason_of", "retry_after"]


def may_pass(error: BaseException) -> bool:
    """Whether trying again makes sense: no connection, too many requests, or the server's own fault."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 425, 429) or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError)


def retry_after(error: BaseException | None) -> float:
    """Seconds that the endpoint asks to wait, 0 where it does not: a number, or a date."""
    if not isinstance(error, openai.APIStatusError):
        return 0.0
    value = error.response.headers.get("retry-after", "").strip()
    try:
        seconds = float(value) if value else 0.0
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def reason_of(error: BaseException | None) -> str:
    """The server's own sentence, or what the connection died of."""
    body = getattr(error, "body", None)
    if isinstance(body, dict) and body.get("message"):
        return str(body["message"])
    return str(getattr(error, "__cause__", None) or error)
