"""What the layers of an engine return, measured at start before anything is believed of them.

Eager dummy batches with hooks on the layers show how often each runs and what it returns. Where that is a pair, two of
its kinds look alike: (hidden, residual) whose sum is the stream, and (hidden, residual) whose second value nothing
reads. They are told apart by what they cannot see:

    a sum            hidden and residual may change places: their sum is the same to the last bit
    a dead residual  may be replaced by anything

Both are tried beside a vector that is added to hidden, so that the two differ and a stream of zeros hides nothing. One
run tries all layers at once; where they differ in kind, halves of them are tried, down to a single layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import StartupError
from .dummy import DummyRuns
from .forms import parts

__all__ = ["Kinds", "check_finite", "class_name", "distance", "hooked", "measure", "random_vector", "refusal"]

Layers = Mapping[int, nn.Module]
Change = Callable[[int, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass
class Kinds:
    """Of each measured layer. summed: whether its residual is a part of the stream; None for no residual, or where a
    pipeline rank cannot measure it. size: the root mean square of its stream in a dummy batch."""

    summed: dict[int, bool | None]
    pairs: frozenset[int]
    size: dict[int, float]


def measure(runs: DummyRuns, layers: Layers) -> Kinds:
    """Measure what layers return.

    Raises:
        StartupError: a layer that runs more than once, returns something else than one stream, or has a residual that
            is neither a part of the stream nor unread. Names the layer, its class and the reason.
    """
    tokens = runs.sizes[0]
    with hooked(layers, lambda number: _Look()) as looks:
        plain = runs.eager(tokens)
    for number, look in looks.items():
        if problem := look.problem(tokens):
            raise refusal(number, layers[number], problem)
    pairs = frozenset(number for number, look in looks.items() if look.residual is not None)
    summed: dict[int, bool | None] = dict.fromkeys(looks)
    if pairs and plain is not None:
        check_finite(plain)
        summed |= _Pairs(runs, {number: layers[number] for number in sorted(pairs)}).kinds(sorted(pairs))
    return Kinds(summed, pairs, {number: look.size(summed[number]) for number, look in looks.items()})


class _Look:
    """A hook that sees what a layer returns."""

    def __init__(self) -> None:
        self.calls = 0
        self.hidden: torch.Tensor | None = None
        self.residual: torch.Tensor | None = None
        self.returned = ""

    def __call__(self, layer: nn.Module, args: Any, out: Any) -> None:
        self.calls += 1
        self.returned = _described(out)
        if (found := parts(out)) is not None:
            self.hidden, self.residual = (None if part is None else part.float().clone() for part in found)

    def problem(self, tokens: int) -> str | None:
        if self.calls != 1:
            return f"runs {self.calls} times in a forward pass, and not once"
        if self.hidden is None:
            return f"returns {self.returned}, which is not one residual stream"
        if len(self.hidden) < tokens:
            return f"returns {len(self.hidden)} rows for {tokens} tokens"
        return None

    def size(self, summed: bool | None) -> float:
        assert self.hidden is not None
        stream = self.hidden if self.residual is None or summed is False else self.hidden + self.residual
        return float(stream.square().mean().sqrt())


def _described(out: Any) -> str:
    if isinstance(out, torch.Tensor):
        return f"a tensor of shape {list(out.shape)}"
    if isinstance(out, (tuple, list)):
        return f"{len(out)} values ({', '.join(map(_described, out))})"
    return f"a {type(out).__name__}"


class _Pairs:
    """Tells the two kinds of pairs apart."""

    def __init__(self, runs: DummyRuns, layers: Layers) -> None:
        self._runs, self._layers = runs, layers
        self._first = self._last_states(layers, _add)
        self._noise = distance(self._first, self._last_states(layers, _add))

    def kinds(self, numbers: Sequence[int]) -> dict[int, bool]:
        if self._same(numbers, _exchange):
            return dict.fromkeys(numbers, True)
        if self._same(numbers, _replace):
            return dict.fromkeys(numbers, False)
        if len(numbers) == 1:
            raise refusal(
                numbers[0],
                self._layers[numbers[0]],
                "returns two values of which the second is neither added to the first nor without effect",
            )
        half = len(numbers) // 2
        return self.kinds(numbers[:half]) | self.kinds(numbers[half:])

    def _same(self, numbers: Sequence[int], change: Change) -> bool:
        """Whether the last states stay, but for noise, where the vectors are added and these layers changed as well."""
        chosen = set(numbers)
        states = self._last_states(self._layers, lambda n, h, r: (change if n in chosen else _add)(n, h, r))
        eps = torch.finfo(self._runs.dtype).eps
        return distance(self._first, states) <= max(10 * self._noise, eps * float(self._first.norm()))

    def _last_states(self, layers: Layers, change: Change) -> torch.Tensor:
        def hook(number: int) -> Callable[..., Any]:
            return lambda layer, args, out: change(number, *out)

        with hooked(layers, hook):
            states = self._runs.eager(self._runs.sizes[0])
        assert states is not None
        return states


def _add(number: int, hidden: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    size = max(float(part.float().square().mean().sqrt()) for part in (hidden, residual)) or 1.0
    return hidden + random_vector(number, hidden.shape[-1], size).to(hidden), residual


def _exchange(number: int, hidden: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return _add(number, hidden, residual)[::-1]


def _replace(number: int, hidden: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    added = _add(number, hidden, residual)[0]
    return added, torch.full_like(residual, 3.0) - added


def random_vector(number: int, hidden_size: int, size: float) -> torch.Tensor:
    """float32 [D] on the CPU, the same on every rank; its root mean square is about `size`."""
    return size * torch.randn(hidden_size, generator=torch.Generator("cpu").manual_seed(number), device="cpu")


@contextmanager
def hooked(layers: Layers, hook: Callable[[int], Any]) -> Iterator[dict[int, Any]]:
    """Let a hook of each layer's own see, or change, what the layer returns."""
    hooks = {number: hook(number) for number in layers}
    with ExitStack() as undo:
        for number, layer in layers.items():
            undo.callback(layer.register_forward_hook(hooks[number]).remove)
        yield hooks


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Euclidean, over all rows together."""
    return float((one - other).norm())


def check_finite(states: torch.Tensor) -> None:
    """Raises a StartupError where the states of an unsteered batch prove nothing."""
    if not states.isfinite().all():
        raise StartupError(
            "the model's last states are not finite before anything is added to them, so that steering cannot be "
            "checked; look at the weights and at --dtype"
        )


def class_name(layer: nn.Module) -> str:
    """Of the model's own class: those that arming and capture put over it begin with their names."""
    return type(layer).__name__.removeprefix("Captured").removeprefix("Armed")


def refusal(number: int, layer: nn.Module, problem: str) -> StartupError:
    return StartupError(
        f"trimtab cannot steer at layer {number}, a {class_name(layer)}: it {problem}. Start without profiles and "
        "without capture to serve the model unsteered"
    )
