"""Where vLLM traces (`--otlp-traces-endpoint`), each request has a span of ours: what it was given, and its arm.

It has the parent, the start and the request id of vLLM's own span `llm_request`, so that the two stand side by side in
a trace. An experiment is told in OpenTelemetry's words for feature flags (semantic conventions, registry of attributes,
`feature_flag`). A unit is told by its pseudonym, as the exposure log has it, and no text is told.

Leans on vllm/v1/engine/output_processor.py: OutputProcessor.do_tracing, called once per sequence that has ended, where
tracing is on; and on vllm/tracing: instrument_manual, extract_trace_context (0.29 to 0.32).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..compat.wrapping import wrap
from ..requests.decided import entered_by
from .finished import About, given

__all__ = ["SPAN", "attributes_of", "install"]

logger = logging.getLogger("vllm.trimtab")

SPAN = "trimtab.steering"


def install() -> None:
    """Write spans in this process. Safe to call again."""
    from vllm.v1.engine.output_processor import OutputProcessor

    wrap(OutputProcessor, "do_tracing", _trace)


def attributes_of(about: About) -> dict[str, Any]:
    """What a span says. Lists have one value per profile, in the order of the request; they are empty for unsteered.

    A request whose arm was forced is in no experiment here, as in the analysis.
    """
    found: dict[str, Any] = {
        "trimtab.profiles": [profile.name for profile, _ in about.chosen],
        "trimtab.alphas": [alpha for _, alpha in about.chosen],
        "trimtab.digests": [profile.digest for profile, _ in about.chosen],
    }
    entered = entered_by(about.chosen)
    if entered is None or not about.experiment:
        return found
    return {
        **found,
        "trimtab.exposure_id": entered.exposure_id,
        "trimtab.served": entered.served,
        "feature_flag.key": entered.experiment,
        "feature_flag.result.variant": entered.variation,
        "feature_flag.result.reason": "split",
        "feature_flag.context.id": entered.unit,
        "feature_flag.provider.name": "trimtab",
    }


def _trace(trace: Callable[..., None], self: Any, output: Any, state: Any, *args: Any, **kwargs: Any) -> None:
    from vllm.tracing import extract_trace_context, instrument_manual

    trace(self, output, state, *args, **kwargs)
    about = given(state)
    if about is None:
        return
    try:
        instrument_manual(
            SPAN,
            int(state.stats.arrival_time * 1e9),
            attributes={**attributes_of(about), "gen_ai.request.id": state.external_req_id},
            context=extract_trace_context(output.trace_headers),
        )
    except Exception:
        # The caller hands on the outputs of all requests of this process: an error would end every one of them.
        logger.exception("trimtab: a span could not be written")
