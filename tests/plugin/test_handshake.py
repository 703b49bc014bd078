"""A server answers only when every worker is armed with what its front end resolves, and adds it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn
from vllm.v1.executor.abstract import Executor
from vllm.v1.worker.worker_base import WorkerBase

from trimtab.plugin.config import SteeringConfig
from trimtab.plugin.errors import StartupError
from trimtab.plugin.model.tables import SteeringTables
from trimtab.plugin.runners import handshake


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Executor, "compile_or_warm_up_model", lambda executor: ["warm"])
    handshake.install()


def tables(digest: str) -> SteeringTables:
    return SteeringTables({1: 4}, 3, 8, tokens=16, requests=2, registry_digest=digest)


def worker(found: SteeringTables | None) -> SimpleNamespace:
    model = nn.Module()
    if found is not None:
        model.trimtab = found
    return SimpleNamespace(get_model=lambda: model)


def check(worker: Any, *arguments: Any) -> None:
    WorkerBase.trimtab_check(worker, *arguments)  # type: ignore[attr-defined]


def test_a_worker_with_the_same_profiles_passes() -> None:
    check(worker(tables("digest")), "digest")


def test_a_worker_that_is_not_armed_or_armed_with_others_stops_the_start() -> None:
    for found, told in ((None, "no profiles"), (tables("old"), "other profiles")):
        for probe in (False, True):
            with pytest.raises(StartupError, match=f"armed with {told}: start every node with trimtab-serve"):
                check(worker(found), "digest", probe)


class Workers:
    """An executor with one worker, which calls what it is told to."""

    def __init__(self, config: dict[str, Any], worker: Any) -> None:
        self.vllm_config = SimpleNamespace(additional_config=config)
        self._worker = worker
        self.asked: list[tuple[Any, ...]] = []

    def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> None:
        self.asked.append(args)
        getattr(WorkerBase, method)(self._worker, *args)


CONFIG = SteeringConfig(profiles="p", digest="digest", rows={1: 4}, slots=3).to_additional_config()


def warm_up(workers: Workers) -> Any:
    return Executor.compile_or_warm_up_model(workers)


def test_an_engine_asks_its_workers_and_has_them_probed_once_it_is_warm() -> None:
    dead = worker(tables("digest"))
    dead.model_runner = SimpleNamespace(_dummy_run=lambda n, force_attention: (None, None))
    workers = Workers(CONFIG, dead)
    assert warm_up(workers) == ["warm"]
    assert workers.asked == [("digest", True)]


def test_an_engine_with_other_workers_does_not_start() -> None:
    with pytest.raises(StartupError, match="armed with other profiles"):
        warm_up(Workers(CONFIG, worker(tables("old"))))


def test_an_engine_without_profiles_asks_nobody() -> None:
    workers = Workers({}, worker(None))
    assert warm_up(workers) == ["warm"]
    assert workers.asked == []


def test_installing_again_asks_once() -> None:
    once = Executor.compile_or_warm_up_model
    handshake.install()
    assert Executor.compile_or_warm_up_model is once
