from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.offline.test_dictionary import clouds
from tests.offline.worlds import states_of
from trimtab.offline.cli.options import parse_mapping
from trimtab.offline.concepts import class_means, kmeans
from trimtab.offline.errors import SettingError
from trimtab.offline.states.relabel import Labels, labelled
from trimtab.offline.steering import coarse_profile, fine_profile
from trimtab.offline.steering.fine import ConceptWarning
from trimtab.offline.steering.rows import concept_vectors
from trimtab.offline.steering.words import typical_norm
from trimtab.vectors import AlphaRange, load_profile, save_profile
from trimtab.vectors.profile import CoarseLayer, FineLayer


def test_the_coarse_vector_leads_from_the_mean_of_the_original_to_the_mean_of_the_target() -> None:
    states = clouds(spread=2.0)
    profile = coarse_profile("yes-to-no", [states], {"yes": "no"})
    tensors = profile.tensors[2]
    assert isinstance(tensors, CoarseLayer)
    original, target = (states.values[states.of({word})].mean(axis=0) for word in ("yes", "no"))
    np.testing.assert_allclose(original + tensors.vector, target, atol=1e-5)


def test_only_answers_are_refused_for_a_shared_first_token() -> None:
    states = states_of(np.eye(4), ["sad", "happy", "sad", "happy"], tokens=[7, 7, 7, 8])
    with pytest.raises(SettingError, match="'sad' and 'happy' begin with the same token"):
        coarse_profile("cheer", [states], {"sad": "happy"})
    with pytest.raises(SettingError, match="begin with the same token"):
        fine_profile("cheer", [(states, class_means(states, min_count=1))], {"sad": "happy"})
    for labels in ("truth", "mood", "judge.csv sha256:0"):
        told = labelled(states, Labels(labels, dict(zip(states.sample_ids, states.labels, strict=True))))
        tensors = coarse_profile("cheer", [told], {"sad": "happy"}).tensors[2]
        assert isinstance(tensors, CoarseLayer)
        np.testing.assert_allclose(tensors.vector, [-0.5, 0.5, -0.5, 0.5])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConceptWarning)
            fine_profile("cheer", [(told, class_means(told, min_count=1))], {"sad": "happy"})


def test_several_pairs_make_one_coarse_vector_from_any_original_to_any_target() -> None:
    states = clouds()
    profile = coarse_profile("both", [states], {"yes": "no", "two": "three"})
    tensors = profile.tensors[2]
    assert isinstance(tensors, CoarseLayer)
    expected = states.values[states.of({"no", "three"})].mean(axis=0) - states.values[states.of({"yes", "two"})].mean(
        axis=0
    )
    np.testing.assert_allclose(tensors.vector, expected, atol=1e-5)


@pytest.mark.parametrize("k", [4, 9, None])
def test_adding_a_concepts_row_to_it_gives_the_target_concept(k: int | None) -> None:
    states = clouds(spread=2.0)
    dictionary = class_means(states) if k is None else kmeans(states, k)
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
    states = clouds()
    dictionary = kmeans(states, 4)
    profile = fine_profile("fine", [(states, dictionary)], {"yes": "no"})
    tensors = profile.tensors[2]
    assert isinstance(tensors, FineLayer)
    assert np.array_equal(tensors.centroids, dictionary.centroids)
    assert np.array_equal(tensors.vectors, concept_vectors(dictionary, {"yes": "no"}))
    assert profile.manifest.provenance.evaluation == {"training states": {"2": {"yes": 1.0}}}


def test_a_word_without_a_concept_of_its_own_is_warned_of() -> None:
    states = clouds()
    dictionary = kmeans(states, 4)  # "three" shares its concept with "two"
    with pytest.warns(ConceptWarning, match="'three' has no concept of its own.*67%"):
        fine_profile("fine", [(states, dictionary)], {"yes": "three"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fine_profile("fine", [(states, dictionary)], {"yes": "no"})
        fine_profile("fine", [(states, class_means(states))], {"yes": "no"})


def test_a_word_that_mostly_lies_in_another_words_concept_is_warned_of() -> None:
    values = np.concatenate([np.eye(3)[[0] * 10], np.eye(3)[[1] * 10], np.eye(3)[[2] * 40]])
    states = states_of(values, ["yes"] * 10 + ["no"] * 10 + ["yes"] * 15 + ["maybe"] * 25)
    with pytest.warns(ConceptWarning, match="only 40% of the states of 'yes'"):
        fine_profile("fine", [(states, kmeans(states, 3))], {"yes": "no"})


def test_a_word_without_any_concept_or_row_is_refused_with_the_nearest_one() -> None:
    states = clouds()
    with pytest.raises(SettingError, match="no concept stands for 'two'"):
        fine_profile("fine", [(states, kmeans(states, 4))], {"two": "no"})
    with pytest.raises(SettingError, match=r"no state stands for 'yess' \(did you mean 'yes'\?\)"):
        coarse_profile("coarse", [states], {"yess": "no"})


def test_words_that_the_states_cannot_tell_apart_are_refused() -> None:
    states = states_of(np.eye(4), ["1", "1", "3", "yes"], tokens=[7, 7, 7, 8])
    with pytest.raises(SettingError, match="--rule predicts:1,3"):
        coarse_profile("numbers", [states], {"1": "3"})
    with pytest.raises(SettingError, match="--rule predicts:1,3"):
        fine_profile("numbers", [(states, class_means(states))], {"1": "3"})
    coarse_profile("numbers", [states], {"1": "yes"})


def test_a_dictionary_of_another_layer_is_refused() -> None:
    states = clouds()
    other = states_of(states.values, states.labels)
    dictionary = class_means(other)
    object.__setattr__(dictionary, "layer", 1)
    with pytest.raises(SettingError, match="of one layer and model"):
        fine_profile("fine", [(states, dictionary)], {"yes": "no"})


def test_a_profile_carries_the_models_fingerprint_its_doses_and_its_range(tmp_path: Path) -> None:
    states = clouds()
    made = coarse_profile("yes-to-no", [states], {"yes": "no"}, alpha=AlphaRange(max=4))
    profile = load_profile(save_profile(made, tmp_path / "yes-to-no"))
    assert profile.manifest.base_model == states.manifest.request.model
    assert profile.manifest.alpha.max == 4
    norms = profile.manifest.norms[2]
    assert norms.hidden == pytest.approx(np.median(np.linalg.norm(states.values, axis=1)), rel=1e-5)
    assert norms.hidden == pytest.approx(typical_norm(states))
    assert profile.manifest.provenance.samples == {"yes": 60, "no": 30}


def test_a_mapping_is_read_from_pairs() -> None:
    assert parse_mapping(["Man=person", " his = their "]) == {"man": "person", "his": "their"}


@pytest.mark.parametrize("pairs", [[], ["yes"], ["=no"], ["yes="], ["yes=yes"], ["a=b=c"], ["a=b", "a=c"]])
def test_a_pair_that_makes_no_sense_is_refused(pairs: list[str]) -> None:
    with pytest.raises(SettingError):
        parse_mapping(pairs)


def test_one_vector_cannot_swap_two_words_and_one_per_concept_can() -> None:
    states = clouds()
    swap = {"yes": "no", "no": "yes"}
    with pytest.raises(SettingError, match="use --kind fine"):
        coarse_profile("swap", [states], swap)
    vectors = concept_vectors(class_means(states), swap)
    np.testing.assert_allclose(vectors[0], -vectors[1], atol=1e-6)
