"""What an answer of any door says: its texts, and what it claims to have been steered by."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx

from trimtab.plugin.http.routes import MESSAGES, RESPONSES


@dataclass(frozen=True)
class Said:
    """texts: of all choices.

    served, headers: (profile, alpha, digest) of what steered, as the body and as the headers say.
    """

    texts: list[str]
    served: list[tuple[str, float, str]]
    headers: list[tuple[str, float, str]]


def said(path: str, reply: httpx.Response) -> Said:
    """Reads an answer with status 200."""
    headers = [reply.headers.get(f"x-steering-{name}", "") for name in ("profile", "alpha", "digest")]
    columns = [text.split(", ") for text in headers if text]
    if reply.headers["content-type"].startswith("text/event-stream"):
        events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
        found = events[0]["response"] if path == RESPONSES else events[0]
        return Said(_streamed(path, events), _told(found["steering"]), _served(columns))
    body = reply.json()
    return Said(_texts(path, body), _told(body["steering"]), _served(columns))


def _told(steering: dict[str, Any]) -> list[tuple[str, float, str]]:
    values = [steering.get(name) for name in ("profile", "alpha", "digest")]
    return _served([value if isinstance(value, list) else [value] for value in values if value is not None])


def _served(columns: list[list[Any]]) -> list[tuple[str, float, str]]:
    if len(columns) < 3:  # "none" has no strength
        return []
    return [(str(name), float(alpha), str(digest)) for name, alpha, digest in zip(*columns, strict=True)]


def _texts(path: str, body: dict[str, Any]) -> list[str]:
    if path == RESPONSES:
        return [part["text"] for item in body["output"] for part in item["content"]]
    if path == MESSAGES:
        return ["".join(part["text"] for part in body["content"])]
    return [_choice(choice, "message") for choice in body["choices"]]


def _streamed(path: str, events: list[dict[str, Any]]) -> list[str]:
    if path == RESPONSES:
        return ["".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")]
    if path == MESSAGES:
        return ["".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")]
    texts: dict[int, str] = {}
    for choice in (choice for event in events for choice in event.get("choices", ())):
        texts[choice["index"]] = texts.get(choice["index"], "") + _choice(choice, "delta")
    return list(texts.values())


def _choice(choice: dict[str, Any], holder: str) -> str:
    return str((choice.get("text") if holder not in choice else choice[holder].get("content")) or "")
