"""A dictionary of a few words, built by the command line: refused, or exact on captions and silent elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from examples.tinyworld.data import write_split
from examples.tinyworld.words import NEUTRAL, gendered, neutralised, words
from trimtab.offline.cli.app import app
from trimtab.offline.images import open_image
from trimtab.offline.models import Reader
from trimtab.offline.models.reader import Question
from trimtab.offline.states.samples import read_samples
from trimtab.vectors import Profile, load_profile
from trimtab.vectors.nearest import distances, nearest

MODEL = Path(__file__).parents[2] / "examples" / "tinyworld" / "model"
NARROW = "predicts:man,woman,boy,girl,his,her,person,child,their"
LAYER = 5
MAP = [part for original, target in NEUTRAL.items() for part in ("-m", f"{original}={target}")]

pytestmark = pytest.mark.skipif(not (MODEL / "model.safetensors").exists(), reason="the model is not trained yet")


def trimtab(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captions of 160 scenes by the narrow rule and by all words, and a dictionary of each."""
    folder = tmp_path_factory.mktemp("narrow")
    write_split(folder / "train", "train", 160, seed=5)
    for name, rule, how in (
        ("narrow", NARROW, ["--method", "kmeans", "--k", 20]),
        ("all", "predicts:*", ["--method", "class-means", "--min-count", 5]),
    ):
        data = folder / "train" / "captions.jsonl"
        asked = trimtab(
            "represent", MODEL, data, "--dtype", "float32", "--rule", rule, "-l", LAYER, "--out", folder / name
        )
        assert asked.exit_code == 0, asked.output
        assert (
            trimtab("dictionary", folder / name, "-l", LAYER, *how, "--out", folder / f"{name}-concepts").exit_code == 0
        )
    return folder


class Captions:
    """A model that captions pictures, steered as serving defines it (docs/method.md §4)."""

    def __init__(self, folder: Path) -> None:
        self.reader = Reader(MODEL, "float32")
        write_split(folder, "test", 80, seed=6)
        samples = read_samples(folder / "captions.jsonl").samples
        self.asked = [Question(one.question, open_image(one.image)) for one in samples if one.image is not None]
        self.plain = self.told(None)

    def told(self, profile: Profile | None) -> list[str]:
        with self._steered(profile):
            batches = (self.asked[start : start + 40] for start in range(0, len(self.asked), 40))
            return [one.answer.text for batch in batches for one in self.reader.read(batch, [0], 24)]

    @contextmanager
    def _steered(self, profile: Profile | None) -> Iterator[None]:
        if profile is None:
            yield
            return
        gate, named = profile.manifest.gate, profile.tensors[LAYER].named
        assert gate is not None
        limits = (gate.limits or {}).get(LAYER, (None,) * len(named["centroids"]))
        reach = np.array([np.inf if limit is None else limit for limit in limits])

        def hook(block: torch.nn.Module, inputs: object, output: Any) -> None:
            hidden = output if isinstance(output, torch.Tensor) else output[0]
            h = hidden[:, -1].numpy()
            k = nearest(h, named["centroids"])
            inside = distances(h, named["centroids"][k], gate.metric) <= reach[k]
            hidden[:, -1] += torch.from_numpy(named["vectors"][k] * inside[:, None])

        handle = self.reader.blocks[LAYER].register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Captions:
    return Captions(tmp_path_factory.mktemp("captions") / "test")


def exact(plain: Sequence[str], told: Sequence[str]) -> float:
    """The share of the captions with a gender that are word for word what they were, but neutral."""
    found = [neutralised(old) == new for old, new in zip(plain, told, strict=True) if gendered(old)]
    assert len(found) > 30
    return float(np.mean(found))


def others_changed(plain: Sequence[str], told: Sequence[str]) -> int:
    return sum(old != new for old, new in zip(plain, told, strict=True) if not gendered(old))


def stutters(told: Sequence[str]) -> int:
    return sum(any(a == b for a, b in pairwise(words(one))) for one in told)


def profiled(out: Path, states: str, name: str, *more: object) -> Result:
    return trimtab("profile", out / states, "-d", out / f"{states}-concepts", *MAP, "--name", name,
                   "--registry", out / "profiles", *more)  # fmt: skip


def test_the_narrow_rule_makes_captions_exactly_neutral(out: Path, captions: Captions) -> None:
    made = profiled(out, "narrow", "narrow")
    assert made.exit_code == 0, made.output
    assert re.search(r"expected to steer \d+\.\d% of the positions of answers; .* not meant for, 0\.\d%", made.stdout)
    profile = load_profile(out / "profiles" / "narrow")
    assert profile.largest_k <= 20 + 32
    told = captions.told(profile)
    assert exact(captions.plain, told) >= 0.95
    assert others_changed(captions.plain, told) == 0
    assert stutters(told) == 0


def test_without_concepts_of_the_background_it_is_refused_and_would_destroy_captions(
    out: Path, captions: Captions
) -> None:
    refused = profiled(out, "narrow", "blind", "--background-concepts", 0)
    assert refused.exit_code == 1
    assert re.search(r"would steer [3-6]\d\.\d% of the positions .* not meant for; allowed is 5%", refused.stderr)
    assert not (out / "profiles" / "blind").exists()
    forced = profiled(out, "narrow", "blind", "--background-concepts", 0, "--force")
    assert forced.exit_code == 0
    assert "warning: layer 5: the profile would steer" in forced.stderr
    told = captions.told(load_profile(out / "profiles" / "blind"))
    assert exact(captions.plain, told) < 0.5
    assert stutters(told) > 10


def test_a_dictionary_of_all_words_needs_no_more_rows_and_converts_as_before(out: Path, captions: Captions) -> None:
    assert profiled(out, "all", "all").exit_code == 0
    profile = load_profile(out / "profiles" / "all")
    assert trimtab("inspect", out / "profiles" / "all").stdout.count(f"│ {profile.largest_k} │") == 1
    told = captions.told(profile)
    assert exact(captions.plain, told) >= 0.95
    assert others_changed(captions.plain, told) == stutters(told) == 0


def test_a_dictionary_of_other_states_is_refused_and_with_force_measured(out: Path) -> None:
    asked = (
        "profile",
        out / "narrow",
        "-d",
        out / "all-concepts",
        *MAP,
        "--registry",
        out / "profiles",
        "--name",
        "d5",
    )
    refused = trimtab(*asked)
    assert refused.exit_code == 1
    assert f"it was made with rule 'predicts:*', and the states '{NARROW}'" in refused.stderr
    forced = trimtab(*asked, "--force")
    assert forced.exit_code == 0
    assert "warning: layer 5: the dictionary was not made from these states" in forced.stderr
    assert "not meant for, " in forced.stdout


def test_the_coarse_vector_behind_a_gate_touches_the_same_positions(out: Path) -> None:
    made = profiled(out, "narrow", "gated", "--kind", "gated", "--gate", "token")
    assert made.exit_code == 0, made.output
    fine, gated = (load_profile(out / "profiles" / name) for name in ("narrow", "gated"))
    assert gated.manifest.touched == fine.manifest.touched
    rows = gated.tensors[LAYER].named["vectors"]
    assert len(np.unique(rows[rows.any(axis=1)], axis=0)) == 1


def test_a_gate_that_decides_once_and_pairs_of_numbers_are_options(out: Path) -> None:
    asked = ("profile", out / "narrow", "-d", out / "narrow-concepts", "--registry", out / "profiles", "--name", "pair")
    made = trimtab(*asked, "--pair", "0=1", "--gate", "once", "--metric", "cosine", "--max-distance", 0.5)
    assert made.exit_code == 0, made.output
    gate = load_profile(out / "profiles" / "pair").manifest.gate
    assert gate is not None
    assert (gate.scope, gate.metric, gate.max_distance) == ("sequence", "cosine", 0.5)
    for wrong, said in (
        (("--pair", "0=one"), "expected two concept numbers, as in 3=7"),
        (("--pair", "0=1", "--pair", "0=2"), "choose one"),
        (("--pair", "0=1", "--map", "man=person"), "--map of words, or --pair"),
        ((), "--map of words, or --pair"),
        (("--pair", "0=1", "--metric", "cosine", "--max-distance", "3"), "--max-distance: 3 is no cosine distance"),
        (("--pair", "0=1", "--kind", "gated"), "give --map for another kind"),
    ):  # fmt: skip
        refused = trimtab(*asked, *wrong)
        assert refused.exit_code == 1
        assert said in refused.stderr


def test_states_without_background_leave_it_unknown_and_that_is_said(out: Path) -> None:
    data = out / "train" / "captions.jsonl"
    few = ("--background", 0, "--limit", 50, "--dtype", "float32")
    asked = trimtab("represent", MODEL, data, "--rule", NARROW, "-l", LAYER, *few, "--out", out / "bare")
    assert asked.exit_code == 0, asked.output
    assert trimtab("dictionary", out / "bare", "-l", LAYER, "--method", "class-means",
                   "--out", out / "bare-concepts").exit_code == 0  # fmt: skip
    made = profiled(out, "bare", "bare")
    assert made.exit_code == 0, made.output
    assert "holds no background states, so it is not known what else the profile will steer" in made.stderr
    assert load_profile(out / "profiles" / "bare").manifest.touched is None


@pytest.mark.parametrize(
    ("positions", "where"), [("image", "the image positions of prompts"), ("all", "prompts"), ("answer", None)]
)
def test_what_a_profile_steers_of_prompts_is_unknown_and_that_is_said(
    out: Path, positions: str, where: str | None
) -> None:
    made = profiled(out, "all", f"at-{positions}", "--positions", positions)
    assert made.exit_code == 0, made.output
    assert ("it is not known what share of" in made.stderr) == (where is not None)
    assert f"what share of {where} the profile will steer" in made.stderr or where is None
    assert ("was not measured what share" in made.stdout) == (where is not None)
    assert (load_profile(out / "profiles" / f"at-{positions}").manifest.touched is None) == (positions == "image")
