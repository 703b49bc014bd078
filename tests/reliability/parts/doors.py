"""Every route of a running server, with every way to ask for steering: each answer is steered or refused.

steered: answers whose text is the word that the profile makes the model say, and that say so. refused: 4xx, or a 501.
generated_nothing: routes without a model's answer, such as /ping, that have nothing to steer. absent: routes that this
server does not have. silently_unsteered: whatever else came back with a 200: none.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tests.engine.server import MODEL_NAME
from tests.reliability.answers import said
from tests.reliability.served import Shared, asking, policy, shared
from tests.reliability.words import WORDS
from trimtab.plugin.http.routes import BATCH, ROUTES, STEERED, Serves

OPEN = policy(rules=[{"subjects": ["*"], "allow": {"*": {}}, "may_name_versions": True}], enforced=[])
"""A policy that lets everybody use every profile, and adds none."""

_NAME = "say-arm"
# Needed by routes whose request cannot be without them; what is refused for another reason than ours shows nothing.
_BODIES: dict[str, dict[str, Any]] = {
    "/generative_scoring": {"query": "who?", "items": ["yes"], "label_token_ids": [5, 6]},
    "/v1/systemone": {"state": "x", "questions": {"a": {"type": "yes_no"}}},
    "/inference/v1/generate": {"token_ids": [5], "sampling_params": {"max_tokens": 2}},
    "/tokenize": {"prompt": "who?"},
    "/detokenize": {"tokens": [5]},
    "/v1/chat/completions/render": {"messages": [{"role": "user", "content": "who?"}]},
    "/v1/completions/render": {"prompt": "who?"},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "who?"}]},
}


def run(work: Path, share: float) -> dict[str, Any]:
    server = shared(work)
    server.govern(OPEN)
    try:
        return _walk(server, share)
    finally:
        server.govern(policy())


def _walk(server: Shared, share: float) -> dict[str, Any]:
    digest = server.registry[_NAME].digest
    listed = {path for path, ways in server.http.get("/openapi.json").json()["paths"].items() if "post" in ways}
    wrong = [f"{path}: is a route that nobody has decided on" for path in sorted(listed - ROUTES.keys())]
    paths = [
        path for path, serves in sorted(ROUTES.items()) if serves is not Serves.SILENT or path in listed | {*_BODIES}
    ]
    cells = [(path, form, stream) for path in paths for form in _forms(digest) for stream in (False, True)]
    cells = [cell for cell in cells if not (cell[0] == BATCH and cell[2])][:: max(1, round(1 / share))]
    tally, absent = Counter[str](), set()
    for path, (form, sent, headers, query), stream in tqdm(cells, "doors", mininterval=5):
        body = asking(path) if path in STEERED else {"model": MODEL_NAME, **_BODIES.get(path, {})}
        body = {**body, **({"stream": True} if stream else {}), **sent}
        reply = server.http.post(path + query, json=body, headers=headers)
        if reply.status_code in (404, 405) and "steering" not in reply.text and _NAME not in reply.text:
            absent.add(path)
            continue
        if 400 <= reply.status_code < 500 or reply.status_code == 501:
            tally["refused"] += 1
            if path in STEERED and form in _SERVED:
                wrong.append(f"{path}: refuses {form}: {reply.text[:200]}")
        elif reply.status_code == 200 and path in STEERED and _is_steered(path, reply, digest):
            tally["steered"] += 1
        elif reply.status_code == 200 and ROUTES[path] is Serves.SILENT and not (path in _BODIES and form in _FIELD):
            tally["generated_nothing"] += 1
        elif reply.status_code == 200:
            tally["silently_unsteered"] += 1
            wrong.append(f"{path}: answers {form} unsteered: {reply.text[:200]}")
        else:
            wrong.append(f"{path}: {form} ends in {reply.status_code}: {reply.text[:200]}")
    kinds = ("steered", "refused", "generated_nothing", "silently_unsteered")
    return {**{kind: tally[kind] for kind in kinds}, "absent": len(absent), "wrong": wrong}


_FIELD = ("name", "name and strength", "object", "list", "version", "misspelt", "in vllm_xargs")
"""Forms that have the field, or what looks like it, in the body."""
_SERVED = ("name", "name and strength", "object", "list", "version", "model", "model and strength", "model and null")


def _forms(digest: str) -> list[tuple[str, dict[str, Any], dict[str, str], str]]:
    """(its name, fields, headers, what follows the path), for each way to ask. The later ones are nobody's: refused."""
    one = {"profile": _NAME, "alpha": 1.0}
    model = f"{MODEL_NAME}:{_NAME}"
    fields: dict[str, dict[str, Any]] = {
        "name": {"steering": _NAME},
        "name and strength": {"steering": f"{_NAME}@1"},
        "object": {"steering": one},
        "list": {"steering": [one]},
        "version": {"steering": f"{_NAME}@sha256:{digest[:12]}"},
        "model": {"model": model},
        "model and strength": {"model": f"{model}@1.0"},
        "model and null": {"model": model, "steering": None},
        "misspelt": {"stearing": _NAME},
        "in capitals": {"Steering": _NAME},
        "in metadata": {"metadata": {"steering": _NAME}},
        "in vllm_xargs": {"vllm_xargs": {"steering": _NAME}},
        "in extra_body": {"extra_body": {"steering": _NAME}},
        "in extra_args": {"extra_args": {"steering": _NAME}},
        "in chat_template_kwargs": {"chat_template_kwargs": {"steering": _NAME}},
        "spilled": dict(one),
        "a model's name and another": {"model": model, "steering": "say-both"},
    }
    found: list[tuple[str, dict[str, Any], dict[str, str], str]] = [
        (name, sent, {}, "") for name, sent in fields.items()
    ]
    return [*found, ("a header", {}, {"X-Steering": _NAME}, ""), ("a query", {}, {}, f"?steering={_NAME}")]


def _is_steered(path: str, reply: Any, digest: str) -> bool:
    told = said(path, reply)
    expected = [(_NAME, 1.0, digest)]
    spoken = {word for text in told.texts for word in text.split()}
    return told.served == told.headers == expected and spoken == {WORDS[_NAME]}
