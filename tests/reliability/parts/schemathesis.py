"""Cases that schemathesis makes of the server's own OpenAPI page, right and wrong ones: no route of ours answers 5xx.

The routes are those under /v1/steering, with an admin key and on a profile of their own, and the doors that steer. The
schemas of these are vLLM's beside the field and take seconds per case, so they get fewer.

cases: sent. positive, negative: how many follow the schema, and how many break it. 5xx: none. by_status: how many were
answered so.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from tqdm import tqdm

from tests.reliability.served import ADMIN, Shared, policy, shared
from trimtab.plugin.http.admin import KEY_HEADER
from trimtab.plugin.http.routes import INVOCATIONS, RESPONSES, STEERED
from trimtab.vectors import save_profile

EACH = 190  # cases per route and mode
EACH_OF_DOORS = 20
_OWN = "scratch"
_MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
_ALL = list(HealthCheck)


def run(work: Path, share: float) -> dict[str, Any]:
    server = shared(work)
    server.govern(policy())
    save_profile(server.speech.profile(_OWN, "both"), server.profiles / _OWN, overwrite=True)
    try:
        return _run(server, share)
    finally:
        shutil.rmtree(server.profiles / _OWN, ignore_errors=True)
        server.change("unload", _OWN)


def _run(server: Shared, share: float) -> dict[str, Any]:
    pages = schemathesis.openapi.from_url(str(server.http.base_url.join("/openapi.json")))
    operations = [found.ok() for found in pages.get_all_operations() if isinstance(found, Ok)]
    ours = [one for one in operations if one.path in STEERED - {INVOCATIONS} or one.path.startswith("/v1/steering/")]
    tally, statuses, wrong = Counter[str](), Counter[int](), []
    for operation in tqdm(ours, "schemathesis", mininterval=5):
        each = EACH_OF_DOORS if operation.path in STEERED else EACH
        for mode in _MODES if operation.body or operation.path_parameters else ():
            for case in _cases(operation, mode, max(1, round(each * share))):
                reply = case.call(headers={KEY_HEADER: ADMIN}, timeout=300)
                tally[mode.value] += 1
                statuses[reply.status_code] += 1
                if reply.status_code >= 500:
                    sent = f"{case.path_parameters} {case.body!r}"[:300]
                    wrong.append(f"{operation.method} {operation.path} {sent}: {reply.status_code} {reply.text[:300]}")
    if server.ready().status_code != 200:
        wrong.append("the server is not ready afterwards")
    return {
        "cases": tally.total(),
        **tally,
        "5xx": sum(count for status, count in statuses.items() if status >= 500),
        "by_status": {str(status): count for status, count in sorted(statuses.items())},
        "wrong": wrong[:20],
    }


def _cases(operation: Any, mode: GenerationMode, count: int) -> Iterator[Any]:
    """Cases for one route. Half of those that name a profile name the one of this part."""
    found: list[tuple[Any, bool]] = []

    @seed(1)
    @settings(max_examples=count, phases=[Phase.generate], database=None, deadline=None, suppress_health_check=_ALL)
    @given(operation.as_strategy(generation_mode=mode), st.booleans())
    def collect(case: Any, own: bool) -> None:
        found.append((case, own))

    with suppress(Unsatisfiable):  # a path cannot break its schema: whatever it says is text
        collect()
    for case, own in found:
        if own and isinstance(case.body, dict) and "name" in case.body:
            case.body = {**case.body, "name": _OWN}
        if own and "name" in (case.path_parameters or {}):
            case.path_parameters = {**case.path_parameters, "name": _OWN}
        if case.operation.path in STEERED and mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            case.body = {**case.body, "max_output_tokens" if case.operation.path == RESPONSES else "max_tokens": 2}
        yield case
