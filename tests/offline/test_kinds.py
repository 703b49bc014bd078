from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.offline.test_dictionary import clouds
from trimtab.offline.concepts import class_means, kmeans
from trimtab.offline.concepts.kinds import by_type, relabelled
from trimtab.offline.errors import DataError
from trimtab.offline.states.samples import Sample
from trimtab.offline.states.store import LayerStates
from trimtab.offline.steering import coarse_profile, fine_profile
from trimtab.vectors.profile import CoarseLayer, FineLayer

TYPE_OF = {"yes": "Yes/No", "no": "Yes/No", "two": "number", "three": "number"}


def with_samples(states: LayerStates) -> tuple[LayerStates, list[Sample]]:
    """The states as of one sample each, and these samples."""
    ids = tuple(f"s{i}" for i in range(len(states.labels)))
    samples = [Sample(one, "?", type=TYPE_OF[label]) for one, label in zip(ids, states.labels, strict=True)]
    return replace(states, sample_ids=ids), samples


def test_rows_get_the_type_of_their_sample_in_lower_case() -> None:
    states, samples = with_samples(clouds())
    typed = by_type(states, reversed(samples))
    assert typed.labels == tuple(TYPE_OF[label].lower() for label in states.labels)
    assert np.array_equal(typed.values, states.values)


def test_a_row_whose_sample_is_missing_or_has_no_type_is_refused() -> None:
    states, samples = with_samples(clouds())
    with pytest.raises(DataError, match="'s0' of the states has no type"):
        by_type(states, samples[1:])
    with pytest.raises(DataError, match="'s0'"):
        by_type(states, [replace(samples[0], type=""), *samples[1:]])


def test_the_coarse_vector_of_types_leads_from_all_of_the_one_to_all_of_the_other() -> None:
    states, samples = with_samples(clouds(spread=2.0))
    typed = by_type(states, samples)
    profile = coarse_profile("to-yesno", [typed], {"number": "yes/no"})
    tensors = profile.tensors[2]
    assert isinstance(tensors, CoarseLayer)
    number, yes_no = (states.values[states.of(words)].mean(axis=0) for words in ({"two", "three"}, {"yes", "no"}))
    np.testing.assert_allclose(number + tensors.vector, yes_no, atol=1e-5)


@pytest.mark.parametrize("k", [None, 6])
def test_the_fine_profile_of_types_moves_each_concept_to_the_nearest_of_the_target_type(k: int | None) -> None:
    states, samples = with_samples(clouds())
    typed = by_type(states, samples)
    dictionary = relabelled(class_means(states) if k is None else kmeans(states, k), typed)
    tensors = fine_profile("to-yesno", [(typed, dictionary)], {"number": "yes/no"}).tensors[2]
    assert isinstance(tensors, FineLayer)
    u, targets = dictionary.centroids, [i for i, label in enumerate(dictionary.labels) if label == "yes/no"]
    for i, label in enumerate(dictionary.labels):
        if label == "yes/no":
            assert not tensors.vectors[i].any()
        else:
            landed = u[i] + tensors.vectors[i]
            nearest = min(targets, key=lambda j: float(np.linalg.norm(u[j] - u[i])))
            np.testing.assert_allclose(landed, u[nearest], atol=1e-4)


def test_relabelling_counts_the_states_that_lie_nearest_and_keeps_the_concepts() -> None:
    states, samples = with_samples(clouds())
    dictionary = kmeans(states, 4)
    typed = relabelled(dictionary, by_type(states, samples))
    assert np.array_equal(typed.centroids, dictionary.centroids)
    assert typed.labels == tuple(TYPE_OF[label].lower() for label in dictionary.labels)
    assert typed.counts.sum() == len(states.values)
    same = relabelled(dictionary, states)
    assert same.labels == dictionary.labels
    assert np.array_equal(same.counts, dictionary.counts)
    assert np.array_equal(same.purity, dictionary.purity)
    alone = relabelled(dictionary, states.at(np.flatnonzero(states.of({"yes"}))))
    assert [label for label in alone.labels if label] == ["yes", "yes"]
