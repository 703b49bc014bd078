"""A server answers only when every worker is armed with what its front end resolves, and adds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import vllm.distributed
from torch import nn
from vllm.v1.executor.abstract import Executor
from vllm.v1.worker.worker_base import WorkerBase

from tests.plugin.conftest import DEPTH, SIZE
from tests.plugin.small_model import (
    AloneDecoderLayer,
    DeadDecoderLayer,
    Decoder,
    LlamaDecoderLayer,
    Runner,
    TensorDecoderLayer,
    engine_of,
)
from trimtab.plugin.asking import CAPTURE_KEY
from trimtab.plugin.capture import capture_args
from trimtab.plugin.capture import runners as capture_runners
from trimtab.plugin.config import SteeringConfig
from trimtab.plugin.errors import StartupError
from trimtab.plugin.model.arming import arm, tables_of
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
        with pytest.raises(StartupError, match=f"armed with {told}: start every node with trimtab-serve"):
            check(worker(found), "digest")


class Workers:
    """An executor of workers, which call what they are told to."""

    def __init__(self, config: dict[str, Any], *workers: Any) -> None:
        self.vllm_config = SimpleNamespace(additional_config=config)
        self._workers = workers
        self.asked: list[str] = []

    def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[Any]:
        self.asked.append(method)
        return [getattr(WorkerBase, method)(worker, *args) for worker in self._workers]


CONFIG = SteeringConfig(profiles="p", digest="digest", rows={1: 4}, slots=3).to_additional_config()


def warm_up(workers: Workers) -> Any:
    return Executor.compile_or_warm_up_model(workers)


@pytest.fixture
def rank(folder: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A worker that holds some layers of a model that is armed, alone or as a rank of a pipeline."""
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)

    def made(layer: type[nn.Module], here: range = range(DEPTH)) -> Any:
        model = Decoder(here, layer)
        config = engine_of(folder, model_folder, model)
        arm(model, config)
        runner = Runner(model)
        runner.vllm_config.parallel_config.pipeline_parallel_size = 1 if len(here) == DEPTH else 2
        if here.stop < DEPTH:
            runner.last = lambda states: None
        found = SimpleNamespace(get_model=lambda: model, model_runner=runner)
        found.config = config.additional_config
        return found

    return made


def sums(worker: Any) -> list[int]:
    return [int(table.summed) for table in tables_of(worker.get_model()).layers.values()]  # type: ignore[union-attr]


@pytest.mark.parametrize(("layer", "summed"), [(LlamaDecoderLayer, 1), (DeadDecoderLayer, 0)])
def test_an_engine_asks_its_workers_and_has_them_measure_and_prove_once_it_is_warm(
    layer: type[nn.Module], summed: int, rank: Callable[..., Any]
) -> None:
    worker = rank(layer)
    workers = Workers(worker.config, worker)
    assert warm_up(workers) == ["warm"]
    assert workers.asked == ["trimtab_check", "trimtab_measure", "trimtab_prove"]
    assert sums(worker) == [summed] * DEPTH


@pytest.mark.parametrize(("layer", "summed"), [(LlamaDecoderLayer, 1), (DeadDecoderLayer, 0)])
def test_a_pipeline_rank_is_told_what_only_the_last_one_can_measure(
    layer: type[nn.Module], summed: int, rank: Callable[..., Any]
) -> None:
    first, last = rank(layer, range(2)), rank(layer, range(2, DEPTH))
    warm_up(Workers(first.config, first, last))
    assert sums(first) == [summed] * 2
    assert sums(last) == [summed]


def test_a_pipeline_whose_last_rank_has_no_layer_of_the_class_does_not_start(rank: Callable[..., Any]) -> None:
    first, last = rank(DeadDecoderLayer, range(2)), rank(TensorDecoderLayer, range(2, DEPTH))
    with pytest.raises(StartupError, match="layer 0, a DeadDecoderLayer: it returns two values, and a pipeline rank"):
        warm_up(Workers(first.config, first, last))


def test_an_engine_that_captures_has_its_layers_measured_too() -> None:
    workers = Workers({CAPTURE_KEY: {"layers": [1]}})
    assert warm_up(workers) == ["warm"]
    assert workers.asked == ["trimtab_measure", "trimtab_prove"]


def test_an_engine_with_other_workers_does_not_start() -> None:
    with pytest.raises(StartupError, match="armed with other profiles"):
        warm_up(Workers(CONFIG, worker(tables("old"))))


def test_an_engine_without_profiles_asks_nobody() -> None:
    workers = Workers({}, worker(None))
    assert warm_up(workers) == ["warm"]
    assert workers.asked == []


@pytest.mark.parametrize(
    "layer",
    [LlamaDecoderLayer, DeadDecoderLayer, AloneDecoderLayer, TensorDecoderLayer],
    ids=lambda kind: kind.__name__,
)
def test_what_is_captured_of_every_form_is_the_stream_that_the_next_layer_reads(
    layer: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm.distributed, "get_tensor_model_parallel_rank", lambda: 0)
    model = Decoder(layer=layer)
    runner = Runner(model)
    runner.vllm_config.additional_config = capture_args([0, 1, 2])["additional_config"]
    runner.vllm_config.model_config.get_hidden_size = lambda: SIZE
    runner.vllm_config.model_config.get_total_num_hidden_layers = lambda: DEPTH
    capture_runners.arm(model, runner.vllm_config)
    worker = SimpleNamespace(get_model=lambda: model, model_runner=runner)
    warm_up(Workers(runner.vllm_config.additional_config, worker))
    rows = capture_runners.rows_of(model)
    assert rows is not None
    wire = {"key": "r", "spans": [(0, 5)]}
    rows.step([("r", wire)], np.zeros(1, np.int64), np.full(1, 5))
    embedded = torch.randn(5, SIZE)
    model.last_states(embedded)
    _, found = rows.take(["r"])["r"]
    stream = embedded
    for number, inner in enumerate(cast(nn.Module, module.inner) for module in model.layers):
        stream = stream + inner(stream)
        kept = np.frombuffer(found[str(number)], np.float32).reshape(5, SIZE)
        np.testing.assert_allclose(kept, stream.numpy(), rtol=1e-5, atol=1e-5)


def test_installing_again_asks_once() -> None:
    once = Executor.compile_or_warm_up_model
    handshake.install()
    assert Executor.compile_or_warm_up_model is once
