"""Concept dictionaries: the nearest concept, and a form on disk that is checked as a profile's is."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trimtab.vectors import ConceptDictionary, ModelIdentity
from trimtab.vectors.errors import FormatError, IntegrityError, VectorError
from trimtab.vectors.profile import Provenance

MODEL = ModelIdentity(architecture="Llama", hidden_size=3, num_layers=2)
small_integers = st.integers(-50, 50)


def dictionary(centroids: np.ndarray) -> ConceptDictionary:
    k = len(centroids)
    return ConceptDictionary(
        layer=1,
        centroids=centroids,
        labels=tuple(f"word {index}" for index in range(k)),
        counts=np.arange(k),
        purity=np.linspace(0, 1, k),
        method="kmeans",
        model=MODEL,
        provenance=Provenance(seed=3),
    )


FOUR = dictionary(np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2]], np.float32))


# Integers of this size are exact in float32, ties included.
@given(arrays(np.float32, (4, 3), elements=small_integers), arrays(np.float32, (6, 3), elements=small_integers))
def test_the_nearest_concept_is_the_one_at_the_least_distance_and_the_lowest_index_wins(
    centroids: np.ndarray, h: np.ndarray
) -> None:
    distances = np.square(h[:, None].astype(np.int64) - centroids[None].astype(np.int64)).sum(axis=2)
    nearest = dictionary(centroids).nearest(h)
    assert nearest.dtype == np.int64
    assert nearest.tolist() == distances.argmin(axis=1).tolist()


def test_a_tie_goes_to_the_lowest_index() -> None:
    assert FOUR.nearest(np.array([[1, 0, 0], [1, 1, 0], [0, 2, 2], [9, 9, 9]])).tolist() == [0, 0, 2, 1]


@pytest.mark.parametrize("h", [np.ones(3), np.ones((2, 4)), np.array([[1, np.nan, 0]]), np.ones((0, 3))])
def test_activations_of_another_shape_or_with_nan_have_no_nearest_concept(h: np.ndarray) -> None:
    with pytest.raises(VectorError):
        FOUR.nearest(h)


def test_a_saved_dictionary_loads_as_it_was_and_saves_to_the_same_bytes(tmp_path: Path) -> None:
    first = FOUR.save(tmp_path / "first")
    loaded = ConceptDictionary.load(first)
    for field in fields(FOUR):
        before, after = getattr(FOUR, field.name), getattr(loaded, field.name)
        if isinstance(before, np.ndarray):
            assert after.dtype == before.dtype
            assert after.tobytes() == before.tobytes()
            with pytest.raises(ValueError, match="read-only"):
                after[...] = 0
        else:
            assert after == before
    second = loaded.save(tmp_path / "second")
    assert sorted(path.name for path in first.iterdir()) == ["concepts.json", "concepts.safetensors"]
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"layer": 2},
        {"layer": -1},
        {"centroids": np.ones((4, 2))},
        {"centroids": np.full((4, 3), np.nan)},
        {"labels": ("a", "b", "c")},
        {"labels": ("a", "b", "c", 4)},
        {"counts": np.ones(3, np.int64)},
        {"counts": np.array([1, 2, 3, -1])},
        {"counts": np.ones(4)},
        {"purity": np.array([0, 0, 0, 1.1])},
        {"purity": np.array([0, 0, 0, np.nan])},
        {"purity": np.ones((4, 1))},
    ],
    ids=str,
)
def test_parts_that_do_not_fit_make_no_dictionary(change: dict[str, Any]) -> None:
    with pytest.raises(VectorError):
        replace(FOUR, **change)


def test_an_altered_truncated_or_missing_file_is_refused(tmp_path: Path) -> None:
    folder = FOUR.save(tmp_path / "c")
    tensors, manifest = folder / "concepts.safetensors", folder / "concepts.json"
    good = tensors.read_bytes()
    tensors.write_bytes(good[:-1] + b"\x7f")
    with pytest.raises(IntegrityError, match=r"^c/concepts\.safetensors: its sha256"):
        ConceptDictionary.load(folder)
    tensors.write_bytes(good)
    text = manifest.read_text()
    for old, new in [('"word 3"', '"word 3", "word 4"'), ('"kmeans"', '"magic"'), ('"layer"', '"layers"')]:
        manifest.write_text(text.replace(old, new))
        with pytest.raises(FormatError, match=r"^c/concepts\."):
            ConceptDictionary.load(folder)
    manifest.write_text(text)
    tensors.unlink()
    with pytest.raises(FormatError, match=r"^c/concepts\.safetensors: is missing"):
        ConceptDictionary.load(folder)


def test_a_dictionary_does_not_overwrite_what_is_there(tmp_path: Path) -> None:
    FOUR.save(tmp_path / "c")
    with pytest.raises(FormatError, match="exists already"):
        FOUR.save(tmp_path / "c")
    replace(FOUR, layer=0).save(tmp_path / "c", overwrite=True)
    assert ConceptDictionary.load(tmp_path / "c").layer == 0
