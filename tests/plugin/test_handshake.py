"""A server answers only when every worker is armed with what its front end resolves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn
from vllm.v1.worker.worker_base import WorkerBase

from trimtab.plugin import handshake
from trimtab.plugin.errors import StartupError
from trimtab.plugin.table import SteeringTables


def worker(tables: SteeringTables | None) -> SimpleNamespace:
    model = nn.Module()
    if tables is not None:
        model.trimtab = tables
    return SimpleNamespace(get_model=lambda: model)


def test_a_worker_with_the_same_profiles_passes() -> None:
    handshake.install()
    WorkerBase.trimtab_check(worker(SteeringTables({1: 4}, 2, 8, 16, "digest")), "digest")  # type: ignore[attr-defined]


def test_a_worker_that_is_not_armed_or_armed_with_others_stops_the_start() -> None:
    handshake.install()
    for tables, found in ((None, "no profiles"), (SteeringTables({1: 4}, 2, 8, 16, "old"), "other profiles")):
        with pytest.raises(StartupError, match=f"armed with {found}: start every node with serve.py"):
            WorkerBase.trimtab_check(worker(tables), "digest")  # type: ignore[attr-defined]
