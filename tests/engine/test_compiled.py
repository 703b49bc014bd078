"""Compiled: the same laws, and neither a new profile nor another alpha compiles anything.

The one compiled engine of `make test` steers and captures, since compiling takes longer than all that is asked of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine import captured
from tests.engine.asking import Ask, caption, questions, yes_no
from tests.engine.conftest import BOTH_WAYS, LAST, MIDDLE
from tests.engine.engine import Engine, RefusedError
from tests.engine.reference import Reference
from trimtab.offline.concepts import class_means
from trimtab.offline.states import LayerStates
from trimtab.offline.steering import coarse_profile, fine_profile
from trimtab.vectors import Profile, save_profile

pytestmark = pytest.mark.engine

ASKS = [caption(1, max_tokens=12), *questions("number", 2), *questions("other", 2), *yes_no("yes", 3)]
SPARE = 80
SERVED: dict[str, Any] = {
    "arm": {"rows": SPARE, "layers": [MIDDLE + 1]},
    "capture": captured.LAYERS,
    "enforce_eager": False,
}
STEERINGS = [
    "coarse-middle-all",
    {"profile": "fine-middle-answer", "alpha": 0.5},
    "coarse-last-answer",
    {"profile": "fine-last-all", "alpha": -1},
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A compile cache of our own: a graph of yesterday's code would answer for today's."""
    return {"VLLM_CACHE_ROOT": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def compiled(
    model: Path, profiles: Path, cache: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    log = tmp_path_factory.mktemp("log") / "compiled.log"
    with Engine(log, model, profiles, env=cache, **SERVED) as running:
        yield running


def test_a_compiled_engine_gives_unsteered_requests_the_tokens_of_one_without_the_plugin(
    compiled: Engine, plain: Engine
) -> None:
    assert _has_compiled(compiled)
    expected = [answer.tokens for answer in plain.ask(ASKS)]
    assert [answer.tokens for answer in compiled.ask([ask.steered("none") for ask in ASKS])] == expected
    for name in ("coarse-middle-all", "fine-middle-all", "coarse-last-all", "fine-last-all"):
        zero = {"profile": name, "alpha": 0}
        assert [answer.tokens for answer in compiled.ask([ask.steered(zero) for ask in ASKS])] == expected


@pytest.mark.smoke
@pytest.mark.parametrize("steering", STEERINGS)
def test_a_compiled_engine_steers_as_an_eager_one(compiled: Engine, engine: Engine, steering: object) -> None:
    asks = [ask.steered(steering) for ask in ASKS]
    assert [answer.tokens for answer in compiled.ask(asks)] == [answer.tokens for answer in engine.ask(asks)]


@pytest.mark.parametrize("kind", ["all", "answer"])
def test_a_compiled_engine_captures_the_states_of_transformers(
    compiled: Engine, reference: Reference, kind: str, tmp_path: Path
) -> None:
    compiled.forget()
    captured.check(reference, kind, captured.ASKS, captured.capture(compiled, captured.ASKS, kind, tmp_path))


def test_another_alpha_compiles_nothing(compiled: Engine) -> None:
    compiled.ask([ask.steered("coarse-last-answer") for ask in ASKS])
    before = compiled.call("compilations")
    for alpha in (-2, -0.1, 0, 1e-3, 1.75):
        compiled.ask(
            [ask.steered({"profile": name, "alpha": alpha}) for ask in ASKS for name in ("coarse-middle-all",)]
        )
    assert compiled.call("compilations") == before


def test_a_profile_that_comes_later_compiles_nothing_and_steers(
    compiled: Engine, engine: Engine, rows: dict[int, LayerStates], tmp_path: Path
) -> None:
    twin = "coarse-last-all"
    later = coarse_profile("later-coarse", [rows[LAST]], {"yes": "no", "2": "4"}, positions="all", alpha=BOTH_WAYS)
    fine = fine_profile("later-fine", [(rows[LAST], class_means(rows[LAST]))], {"no": "yes"}, alpha=BOTH_WAYS)
    asks = [replace(ask, full=True, max_tokens=2, ignore_eos=True) for ask in ASKS]
    unsteered = compiled.ask(asks)
    with pytest.raises(RefusedError, match="unknown profile 'later-coarse'"):
        compiled.ask([asks[0].steered(later.name)])
    before = compiled.call("compilations")
    for profile in (later, fine):
        compiled.call("load", folder=str(save_profile(profile, tmp_path / profile.name)))
    steered = compiled.ask([ask.steered(later.name) for ask in asks])
    turned = compiled.ask([ask.steered(fine.name) for ask in yes_no("no", 12)])
    assert compiled.call("compilations") == before
    assert all(here.logprobs != there.logprobs for here, there in zip(steered, unsteered, strict=True))
    assert [answer.text.strip() for answer in turned].count("yes") >= 8
    # And the rows that were there before are still those of their own profiles.
    asks = [ask.steered(twin) for ask in ASKS]
    assert [answer.tokens for answer in compiled.ask(asks)] == [answer.tokens for answer in engine.ask(asks)]


def test_a_profile_for_a_layer_that_is_not_armed_is_refused_with_the_way_out(
    compiled: Engine, rows: dict[int, LayerStates], tmp_path: Path
) -> None:
    stray = replace(rows[MIDDLE], layer=MIDDLE + 2)
    profile = coarse_profile("stray", [stray], {"yes": "no"})
    with pytest.raises(RefusedError, match=rf"--steering-layers {MIDDLE + 2}"):
        compiled.call("load", folder=str(save_profile(profile, tmp_path / profile.name)))
    assert compiled.ask([Ask("who is there?")])


def test_a_profile_that_finds_no_room_is_refused_with_the_way_out(
    compiled: Engine, rows: dict[int, LayerStates], tmp_path: Path
) -> None:
    concepts = np.random.default_rng(0).normal(size=(SPARE + 1, rows[MIDDLE].values.shape[1]))
    profile = Profile.fine("large", {MIDDLE: (concepts, concepts)}, model=rows[MIDDLE].manifest.request.model)
    folder = save_profile(profile, tmp_path / profile.name)
    with pytest.raises(RefusedError, match="start with a larger --steering-rows"):
        compiled.call("load", folder=str(folder))
    assert compiled.ask([Ask("who is there?")])


@pytest.mark.slow
def test_a_second_start_with_other_numbers_in_another_folder_compiles_nothing(
    compiled: Engine,
    model: Path,
    profiles: Path,
    cache: dict[str, str],
    rows: dict[int, LayerStates],
    tmp_path: Path,
) -> None:
    assert _has_compiled(compiled)
    kept = _kernels(cache)
    assert kept
    name = "coarse-last-answer"
    moved = shutil.copytree(profiles, tmp_path / "moved")
    shutil.rmtree(moved / name)
    turned = coarse_profile(name, [rows[LAST]], {"no": "yes"}, alpha=BOTH_WAYS)
    save_profile(turned, moved / name)
    with Engine(tmp_path / "log", model, moved, env=cache, **SERVED) as again:
        assert _kernels(cache) == kept
        answers = again.ask([ask.steered(name) for ask in yes_no("no", 12)])
    assert [answer.text.strip() for answer in answers].count("yes") >= 8


def _kernels(cache: dict[str, str]) -> set[Path]:
    """The libraries that were compiled, by the keys of the graphs that they belong to."""
    return set(Path(cache["VLLM_CACHE_ROOT"]).rglob("*.so"))


def _has_compiled(engine: Engine) -> bool:
    found = engine.call("compilations")
    return int(found["num_graphs_seen"]) + int(found["num_aot_compiles"]) > 0
