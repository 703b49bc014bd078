"""What a layer returns is measured before it is believed, and what cannot be told is refused with a sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.plugin.conftest import DEPTH
from tests.plugin.small_model import (
    AloneDecoderLayer,
    DeadDecoderLayer,
    Decoder,
    DecoderLayer,
    LlamaDecoderLayer,
    Runner,
    TensorDecoderLayer,
)
from trimtab.plugin.errors import StartupError
from trimtab.plugin.model.dummy import DummyRuns
from trimtab.plugin.model.kinds import Kinds, measure

KINDS = {LlamaDecoderLayer: True, DeadDecoderLayer: False, AloneDecoderLayer: None, TensorDecoderLayer: None}


def kinds(runner: Runner) -> Kinds:
    return measure(DummyRuns(runner), dict(enumerate(runner.model.layers)))


@pytest.mark.parametrize(("layer", "summed"), KINDS.items())
def test_each_kind_is_told(layer: type[DecoderLayer], summed: bool | None) -> None:
    runner = Runner(Decoder(layer=layer))
    found = kinds(runner)
    assert found.summed == dict.fromkeys(range(DEPTH), summed)
    assert found.pairs == (set() if summed is None else set(range(DEPTH)))
    assert all(size > 0 for size in found.size.values())
    assert runner.runs == runner.eager_runs == {True: 4, False: 5, None: 1}[summed]  # however many layers there are


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_of_the_stream_is_no_hindrance(dtype: torch.dtype) -> None:
    for layer, summed in KINDS.items():
        runner = Runner(Decoder(layer=layer).to(dtype))
        runner.vllm_config.model_config.dtype = dtype
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            assert kinds(runner).summed == dict.fromkeys(range(DEPTH), summed)
        finally:
            torch.set_default_dtype(before)


def test_layers_of_two_kinds_are_told_one_by_one() -> None:
    class Mixed(Decoder):
        """Ends its sums before the last layer, whose residual is dead."""

        def forward(self, hidden: torch.Tensor) -> Any:
            h, r = self.layers[1](*self.layers[0](hidden, torch.zeros_like(hidden)))
            return self.layers[2](h + r, r)

        def last_states(self, hidden: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self(hidden)[0])

    model = Mixed()
    model.layers[2].__class__ = DeadDecoderLayer
    assert kinds(Runner(model)).summed == {0: True, 1: True, 2: False}


def test_a_noise_of_the_machine_is_no_hindrance() -> None:
    torch.manual_seed(0)
    for layer, summed in KINDS.items():
        runner = Runner(Decoder(layer=layer))
        noise = torch.Generator().manual_seed(0)
        runner.last = lambda states, noise=noise: states + 1e-4 * torch.randn(states.shape, generator=noise)  # type: ignore[misc]
        assert kinds(runner).summed == dict.fromkeys(range(DEPTH), summed)


class TwiceDecoderLayer(LlamaDecoderLayer):
    """Calls itself once more, as looped models call their layers."""

    again = True

    def __call__(self, *state: Any) -> Any:
        return super().__call__(*super().__call__(*state))


class ThreeDecoderLayer(LlamaDecoderLayer):
    def forward(self, hidden: torch.Tensor, residual: torch.Tensor, *rest: Any) -> Any:
        return (*super().forward(hidden, residual), hidden)


class StreamsDecoderLayer(TensorDecoderLayer):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden).expand(4, -1, -1)


class HalfDecoderLayer(TensorDecoderLayer):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden)[:, ::2]


class ScaledDecoderLayer(LlamaDecoderLayer):
    """The residual is read, and is not what is added."""

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor) -> Any:
        return super().forward(hidden, 0.97 * residual)


REFUSED = {
    TwiceDecoderLayer: "runs 2 times in a forward pass, and not once",
    ThreeDecoderLayer: r"returns 3 values \(a tensor of shape \[3, 4\], .*\), which is not one residual stream",
    StreamsDecoderLayer: r"returns a tensor of shape \[4, 3, 4\], which is not one residual stream",
    HalfDecoderLayer: "returns 2 rows for 3 tokens",
    ScaledDecoderLayer: "returns two values of which the second is neither added to the first nor without effect",
}


@pytest.mark.parametrize(("layer", "reason"), REFUSED.items())
def test_a_layer_that_is_not_understood_is_refused_with_its_number_its_class_and_the_reason(
    layer: type[DecoderLayer], reason: str
) -> None:
    with pytest.raises(StartupError, match=rf"cannot steer at layer 0, a {layer.__name__}: it {reason}"):
        kinds(Runner(Decoder(layer=layer)))


def test_nothing_stays_on_the_layers() -> None:
    runner = Runner(Decoder())
    kinds(runner)
    assert not any(layer._forward_hooks for layer in runner.model.layers)


def test_a_rank_without_last_states_sees_what_it_can() -> None:
    runner = Runner(Decoder())
    runner.last = lambda states: None
    found = kinds(runner)
    assert found.summed == dict.fromkeys(range(DEPTH))
    assert found.pairs == set(range(DEPTH))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_states_that_are_no_numbers_stop_the_start(bad: float) -> None:
    runner = Runner(Decoder())
    runner.last = lambda states: torch.full_like(states, bad)
    with pytest.raises(StartupError, match="not finite before anything is added"):
        kinds(runner)
