"""`model` in a body of /invocations, over which vLLM writes a header.

SageMaker names an adapter in a header, so vLLM puts that into `model`, or nothing where there is none, whatever the
body says. A profile in the `model` of the body would be lost, and the answer unsteered.

Leans on vLLM's dependency model_hosting_container_standards: sagemaker/lora/transforms/inject_to_body.py:
`InjectToBodyApiTransform.transform_request` (0.1); and on starlette: the JSON of a request is parsed once, and whoever
reads it gets the same object.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from trimtab.vectors.asked import split_model

from ..compat.wrapping import wrap
from ..requests.model_names import names_of

__all__ = ["install"]

_PACKAGE = "model_hosting_container_standards"


def install() -> None:
    """Let a profile in `model` reach the serving classes. Safe to call again."""
    if _PACKAGE in sys.modules:  # else nothing serves that route, and the import would change how Python logs
        module = importlib.import_module(f"{_PACKAGE}.sagemaker.lora.transforms.inject_to_body")
        wrap(module.InjectToBodyApiTransform, "transform_request", _keep_model)


async def _keep_model(transform: Callable[..., Awaitable[Any]], self: Any, raw_request: Any) -> Any:
    body: Any = None
    with suppress(json.JSONDecodeError):  # vLLM says so
        body = await raw_request.json()
    model = body.get("model") if isinstance(body, dict) else None
    transformed = await transform(self, raw_request)
    models = getattr(raw_request.app.state, "openai_serving_models", None)
    if isinstance(model, str) and models is not None and split_model(model, names_of(models)) is not None:
        if body["model"] is not None:
            from vllm.exceptions import VLLMValidationError

            raise VLLMValidationError(
                "a header names an adapter, and model has a profile in it; write the profile into 'steering'",
                parameter="model",
            )
        body["model"] = model
    return transformed
