"""Every route of a vLLM server that generates, and what becomes of `steering` there: the one table of it.

A route without a row refuses the field, as REFUSED does, and tests/plugin/test_routes.py fails until somebody has
decided. A row that some server lacks is right: most depend on its options.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

__all__ = ["BATCH", "CHAT", "COMPLETIONS", "INVOCATIONS", "MESSAGES", "RESPONSES", "ROUTES", "STEERED", "Serves"]


class Serves(Enum):
    """What a route does with a request that asks for steering."""

    STEERED = "the answer is steered, and says so"
    REFUSED = "it generates, and answers 400: nothing there reads the field"
    SILENT = "it generates nothing, and answers 400 where a body has the field"


CHAT = "/v1/chat/completions"
BATCH = "/v1/chat/completions/batch"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
INVOCATIONS = "/invocations"

_STEERED = (CHAT, BATCH, COMPLETIONS, RESPONSES, MESSAGES, INVOCATIONS)

_REFUSED = (
    # Their sampling parameters are made inside of vLLM, for one token per label.
    "/generative_scoring",
    "/v1/systemone",
    # Takes sampling parameters as they are, without a request class that could have the field.
    "/inference/v1/generate",
    # Drops unknown fields. "model": "base:profile" steers there, because its serving class is that of chat completions.
    "/cohere/v2/chat",
    # Forms and a WebSocket, for speech.
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/realtime",
)

_SILENT = (
    # What a prompt would be.
    "/v1/chat/completions/render",
    "/v1/chat/completions/derender",
    "/v1/completions/render",
    "/v1/completions/derender",
    "/v1/responses/render",
    "/v1/messages/render",
    "/v1/messages/count_tokens",
    "/cohere/v2/chat/render",
    "/tokenize",
    "/detokenize",
    "/tokenizer_info",
    # Answers that were begun before: `steering` was in the request that began them.
    "/v1/responses/{response_id}",
    "/v1/responses/{response_id}/cancel",
    # Discovery, ours and vLLM's, and what an operator changes.
    "/v1/models",
    "/v1/steering/profiles",
    "/v1/steering/profiles/{name}",
    "/v1/steering/profiles/stage",
    "/v1/steering/profiles/activate",
    "/v1/steering/profiles/unload",
    "/v1/steering/profiles/disable",
    "/v1/steering/profiles/enable",
    "/v1/steering/ready",
    "/v1/steering/experiments",
    # Adapters.
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/adapters",
    "/adapters/{adapter_name}",
    # The state of the server.
    "/health",
    "/ping",
    "/load",
    "/version",
    "/metrics",
    "/kv_event_sources",
    "/server_info",
    # Its documentation.
    "/openapi.json",
    "/docs",
    "/docs/oauth2-redirect",
    "/redoc",
    # Controls of the engine.
    "/scale_elastic_ep",
    "/is_scaling_elastic_ep",
    "/abort_requests",
    "/inference/v1/abort_requests",
    "/fault_tolerance/apply",
    "/fault_tolerance/status",
    "/start_profile",
    "/stop_profile",
    # Those of VLLM_SERVER_DEV_MODE.
    "/collective_rpc",
    "/finish_weight_update",
    "/get_world_size",
    "/init_weight_transfer_engine",
    "/is_paused",
    "/is_sleeping",
    "/pause",
    "/release_kv_cache_memory",
    "/reset_encoder_cache",
    "/reset_mm_cache",
    "/reset_prefix_cache",
    "/resume",
    "/shutdown_weight_transfer_engine",
    "/sleep",
    "/start_draft_weight_update",
    "/start_weight_update",
    "/update_weight_version",
    "/update_weights",
    "/wake_up",
    "/weight_checker",
    "/weight_info",
)

ROUTES: Mapping[str, Serves] = {
    **dict.fromkeys(_STEERED, Serves.STEERED),
    **dict.fromkeys(_REFUSED, Serves.REFUSED),
    **dict.fromkeys(_SILENT, Serves.SILENT),
}
"""By the path of the route, as the application spells it."""

STEERED = frozenset(_STEERED)
