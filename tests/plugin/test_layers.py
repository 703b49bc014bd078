"""The decoder layers of a model are found from the caches that it has registered, or the start stops and says why."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from torch import nn
from vllm.model_executor.models.utils import PPMissingLayer

from tests.plugin.small_model import Cache, registered
from trimtab.plugin.errors import StartupError
from trimtab.plugin.model.layers import find_layers


class Box(nn.Module):
    """A module that holds what it is given, by name."""

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


class LanguageModelInside(Box):
    def get_language_model(self) -> nn.Module:
        return self.text  # type: ignore[return-value]


def layers(count: int = 4) -> nn.ModuleList:
    return nn.ModuleList(layer() for _ in range(count))


def layer() -> nn.Module:
    # Experts are a list inside of a layer, and own nothing.
    return Box(attention=Cache(), experts=nn.ModuleList(nn.Linear(1, 1) for _ in range(4)))


def tower(count: int = 8) -> nn.ModuleList:
    return nn.ModuleList(Box(attention=nn.Linear(1, 1)) for _ in range(count))


def find(model: nn.Module, depth: int = 4) -> nn.ModuleList:
    return find_layers(model, registered(model).values(), depth)


FOUND: dict[str, Callable[[nn.ModuleList], nn.Module]] = {
    "a text model": lambda decoder: Box(model=Box(embed=nn.Linear(1, 1), layers=decoder)),
    "a bare one": lambda decoder: Box(h=decoder),
    "two levels down": lambda decoder: Box(transformer=Box(encoder=Box(layers=decoder))),
    "beside a longer tower": lambda decoder: Box(visual=Box(blocks=tower()), model=Box(layers=decoder)),
    "in a language model": lambda decoder: LanguageModelInside(visual=tower(), text=Box(model=Box(layers=decoder))),
    "in a list of whole models": lambda decoder: Box(models=nn.ModuleList([Box(layers=decoder)])),
    "in one of several models": lambda decoder: Box(models=nn.ModuleList([Box(blocks=tower()), Box(layers=decoder)])),
}


@pytest.mark.parametrize("build", FOUND.values(), ids=FOUND)
@pytest.mark.parametrize("depth", [1, 4])
def test_the_innermost_list_that_holds_every_cache_is_the_decoder(
    build: Callable[[nn.ModuleList], nn.Module], depth: int
) -> None:
    decoder = layers(depth)
    assert find(build(decoder), depth) is decoder


def test_a_layer_without_a_cache_is_a_layer() -> None:
    # As those of a hybrid that are nothing but an MLP.
    decoder = nn.ModuleList([layer(), Box(mlp=nn.Linear(1, 1)), layer(), Box(mlp=nn.Linear(1, 1))])
    assert find(Box(layers=decoder)) is decoder


def test_several_caches_in_one_layer_are_one_layer() -> None:
    decoder = nn.ModuleList([Box(attention=Cache(), state=Cache(), both=nn.ModuleList([Cache(), Cache()]))] * 1)
    decoder.extend([layer() for _ in range(3)])
    assert find(Box(layers=decoder)) is decoder


def test_what_is_registered_without_a_cache_is_passed_over() -> None:
    # vLLM registers experts in the same table.
    visual, decoder = nn.Linear(1, 1), layers()
    model = Box(visual=visual, layers=decoder)
    assert find_layers(model, [visual, object(), *registered(model).values()], 4) is decoder


@pytest.mark.parametrize("here", [range(1), range(3, 4), range(1, 3)])
def test_a_pipeline_rank_finds_the_list_that_has_stand_ins_for_the_layers_of_others(here: Iterable[int]) -> None:
    stand_in: type[nn.Module] = PPMissingLayer
    decoder = nn.ModuleList(layer() if number in here else stand_in() for number in range(4))
    model = Box(models=nn.ModuleList([Box(layers=decoder)]))
    assert find(model) is decoder


shared = layer()
REFUSED = {
    "no list of layers holds every module that owns a KV cache": Box(one=layers(), other=layers()),
    "no list of layers holds every module": LanguageModelInside(audio=layers(), text=Box(layers=layers())),
    "no list of layers holds": Box(layers=layers(), extra=Cache()),
    "none of its modules owns a KV cache": Box(layers=tower()),
    "has 5 elements, and its configuration says 4": Box(layers=layers(5)),
    "has 3 elements, and its configuration says 4": Box(layers=layers(3)),
    "the same layer stands in its list of layers more than once": Box(layers=nn.ModuleList([layer(), *[shared] * 3])),
}


@pytest.mark.parametrize(("reason", "model"), REFUSED.items(), ids=REFUSED)
def test_a_model_whose_layers_cannot_be_told_is_refused_with_its_class_and_the_reason(
    reason: str, model: nn.Module
) -> None:
    sentence = rf"cannot find the decoder layers of a {type(model).__name__}: .*{reason}"
    with pytest.raises(StartupError, match=sentence):
        find(model)
