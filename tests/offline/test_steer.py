from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.offline.test_dictionary import clouds
from tests.offline.worlds import rows_of
from trimtab.offline.cli.options import parse_mapping
from trimtab.offline.concepts import class_means, kmeans
from trimtab.offline.errors import SettingError
from trimtab.offline.steering import coarse_profile, fine_profile
from trimtab.offline.steering.profiles import ConceptWarning, concept_vectors, typical_norm
from trimtab.vectors import AlphaRange, load_profile, save_profile
from trimtab.vectors.profile import CoarseLayer, FineLayer


def test_the_coarse_vector_leads_from_the_mean_of_the_original_to_the_mean_of_the_target() -> None:
    rows = clouds(spread=2.0)
    profile = coarse_profile("yes-to-no", [rows], {"yes": "no"})
    tensors = profile.tensors[2]
    assert isinstance(tensors, CoarseLayer)
    original, target = (rows.values[rows.of({word})].mean(axis=0) for word in ("yes", "no"))
    np.testing.assert_allclose(original + tensors.vector, target, atol=1e-5)


def test_several_pairs_make_one_coarse_vector_from_any_original_to_any_target() -> None:
    rows = clouds()
    profile = coarse_profile("both", [rows], {"yes": "no", "two": "three"})
    tensors = profile.tensors[2]
    assert isinstance(tensors, CoarseLayer)
    expected = rows.values[rows.of({"no", "three"})].mean(axis=0) - rows.values[rows.of({"yes", "two"})].mean(axis=0)
    np.testing.assert_allclose(tensors.vector, expected, atol=1e-5)


@pytest.mark.parametrize("k", [4, 9, None])
def test_adding_a_concepts_row_to_it_gives_the_target_concept(k: int | None) -> None:
    rows = clouds(spread=2.0)
    dictionary = class_means(rows) if k is None else kmeans(rows, k)
    vectors = concept_vectors(dictionary, {"yes": "no"})
    u = dictionary.centroids
    targets = [j for j, label in enumerate(dictionary.labels) if label == "no"]
    for i, label in enumerate(dictionary.labels):
        if label != "yes":
            assert not vectors[i].any()
            continue
        moved = u[i] + vectors[i]
        distances = [float(np.linalg.norm(u[j] - moved)) for j in targets]
        nearest = min(range(len(targets)), key=lambda n: float(np.linalg.norm(u[targets[n]] - u[i])))
        assert distances[nearest] < 1e-5
        assert dictionary.labels[int(dictionary.nearest(moved[None])[0])] == "no"


def test_every_concept_of_an_original_word_gets_a_row_and_every_pair_its_own() -> None:
    dictionary = kmeans(clouds(), 4)
    vectors = concept_vectors(dictionary, {"yes": "no", "three": "yes"})
    steered = [label for i, label in enumerate(dictionary.labels) if vectors[i].any()]
    assert sorted(steered) == ["three", "yes", "yes"]


def test_a_fine_profile_carries_the_dictionarys_centroids_and_a_row_for_each() -> None:
    rows = clouds()
    dictionary = kmeans(rows, 4)
    profile = fine_profile("fine", [(rows, dictionary)], {"yes": "no"})
    tensors = profile.tensors[2]
    assert isinstance(tensors, FineLayer)
    assert np.array_equal(tensors.centroids, dictionary.centroids)
    assert np.array_equal(tensors.vectors, concept_vectors(dictionary, {"yes": "no"}))
    assert profile.manifest.provenance.evaluation == {"training rows": {"2": {"yes": 1.0, "others": 0.0}}}


def test_a_word_without_a_concept_of_its_own_is_warned_of() -> None:
    rows = clouds()
    dictionary = kmeans(rows, 4)  # "three" shares its concept with "two"
    with pytest.warns(ConceptWarning, match="'three' has no concept of its own.*67%"):
        fine_profile("fine", [(rows, dictionary)], {"yes": "three"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fine_profile("fine", [(rows, dictionary)], {"yes": "no"})
        fine_profile("fine", [(rows, class_means(rows))], {"yes": "no"})


def test_a_word_that_mostly_lies_in_another_words_concept_is_warned_of() -> None:
    values = np.concatenate([np.eye(3)[[0] * 10], np.eye(3)[[1] * 10], np.eye(3)[[2] * 40]])
    rows = rows_of(values, ["yes"] * 10 + ["no"] * 10 + ["yes"] * 15 + ["maybe"] * 25)
    with pytest.warns(ConceptWarning, match="only 40% of the states of 'yes'"):
        fine_profile("fine", [(rows, kmeans(rows, 3))], {"yes": "no"})


def test_a_word_without_any_concept_or_row_is_refused_with_the_nearest_one() -> None:
    rows = clouds()
    with pytest.raises(SettingError, match="no concept stands for 'two'"):
        fine_profile("fine", [(rows, kmeans(rows, 4))], {"two": "no"})
    with pytest.raises(SettingError, match=r"no state stands for 'yess' \(did you mean 'yes'\?\)"):
        coarse_profile("coarse", [rows], {"yess": "no"})


def test_words_that_the_rows_cannot_tell_apart_are_refused() -> None:
    rows = rows_of(np.eye(4), ["1", "1", "3", "yes"], tokens=[7, 7, 7, 8])
    with pytest.raises(SettingError, match="--rule predicts:1,3"):
        coarse_profile("numbers", [rows], {"1": "3"})
    with pytest.raises(SettingError, match="--rule predicts:1,3"):
        fine_profile("numbers", [(rows, class_means(rows))], {"1": "3"})
    coarse_profile("numbers", [rows], {"1": "yes"})


def test_a_dictionary_of_another_layer_is_refused() -> None:
    rows = clouds()
    other = rows_of(rows.values, rows.labels)
    dictionary = class_means(other)
    object.__setattr__(dictionary, "layer", 1)
    with pytest.raises(SettingError, match="of one layer and model"):
        fine_profile("fine", [(rows, dictionary)], {"yes": "no"})


def test_a_profile_carries_the_models_fingerprint_its_doses_and_its_range(tmp_path: Path) -> None:
    rows = clouds()
    made = coarse_profile("yes-to-no", [rows], {"yes": "no"}, alpha=AlphaRange(max=4))
    profile = load_profile(save_profile(made, tmp_path / "yes-to-no"))
    assert profile.manifest.base_model == rows.manifest.request.model
    assert profile.manifest.alpha.max == 4
    norms = profile.manifest.norms[2]
    assert norms.hidden == pytest.approx(np.median(np.linalg.norm(rows.values, axis=1)), rel=1e-5)
    assert norms.hidden == pytest.approx(typical_norm(rows))
    assert profile.manifest.provenance.samples == {"yes": 60, "no": 30}


def test_a_mapping_is_read_from_pairs() -> None:
    assert parse_mapping(["Man=person", " his = their "]) == {"man": "person", "his": "their"}


@pytest.mark.parametrize("pairs", [[], ["yes"], ["=no"], ["yes="], ["yes=yes"], ["a=b=c"], ["a=b", "a=c"]])
def test_a_pair_that_makes_no_sense_is_refused(pairs: list[str]) -> None:
    with pytest.raises(SettingError):
        parse_mapping(pairs)


def test_one_vector_cannot_swap_two_words_and_rows_can() -> None:
    rows = clouds()
    swap = {"yes": "no", "no": "yes"}
    with pytest.raises(SettingError, match="use --kind fine"):
        coarse_profile("swap", [rows], swap)
    vectors = concept_vectors(class_means(rows), swap)
    np.testing.assert_allclose(vectors[0], -vectors[1], atol=1e-6)
