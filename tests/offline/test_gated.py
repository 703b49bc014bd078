"""A fine profile is kept to what it is meant for, and says what it will touch (docs/method.md §4)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.offline.worlds import states_of
from trimtab.offline.concepts import class_means, kmeans
from trimtab.offline.errors import SettingError
from trimtab.offline.states import LayerStates
from trimtab.offline.states.relabel import Labels, labelled
from trimtab.offline.steering import Gating, fine_profile, gated_profile
from trimtab.offline.steering.fine import ConceptWarning
from trimtab.offline.steering.gates import met
from trimtab.offline.steering.profiles import coarse_vectors
from trimtab.offline.steering.watching import watching_profile
from trimtab.offline.tuning.material import grouped
from trimtab.vectors import Gate, Profile, SteeringVector
from trimtab.vectors.manifest import adds_nothing
from trimtab.vectors.nearest import distances, nearest
from trimtab.vectors.profile import FineLayer

CENTRES = {"man": (10.0, 0, 0, 0), "person": (0, 10.0, 0, 0), "near": (6.0, 0, 6.0, 0), "": (6.0, 0, 0, 6.0)}
MAPPING = {"man": "person"}


def cloud(word: str, count: int, seed: int) -> np.ndarray:
    return np.array(CENTRES[word]) + np.random.default_rng(seed).normal(scale=0.5, size=(count, 4))


@pytest.fixture
def states() -> LayerStates:
    """What a narrow rule keeps: 40 of man, 30 of person."""
    return states_of(np.concatenate([cloud("man", 40, 0), cloud("person", 30, 1)]), ["man"] * 40 + ["person"] * 30)


@pytest.fixture
def background(states: LayerStates) -> LayerStates:
    """Other words, nearer to man than to person; 60 states, each of which stands for 4 positions."""
    others = states_of(np.concatenate([cloud("near", 40, 2), cloud("", 20, 3)]), ["near"] * 40 + [""] * 20)
    return replace(others, weights=np.full(60, 4.0), manifest=states.manifest)


def rows_of(profile: Profile) -> FineLayer:
    tensors = profile.tensors[2]
    assert isinstance(tensors, FineLayer)
    return tensors


def steered(profile: Profile, states: LayerStates) -> np.ndarray:
    """Which states the gate steers, by the format's own words (docs/profile-format.md)."""
    tensors, gate = rows_of(profile), profile.manifest.gate
    assert gate is not None
    fallen = nearest(states.values, tensors.centroids)
    own = (gate.limits or {}).get(2, (None,) * len(tensors.centroids))
    reach = [gate.max_distance if limit is None else limit for limit in own]
    far = distances(states.values, tensors.centroids[fallen], gate.metric)
    inside = far <= np.array([np.inf if limit is None else limit for limit in reach])[fallen]
    found: np.ndarray = np.linalg.norm(tensors.vectors, axis=1)[fallen].astype(bool) & inside
    return found


def touched(profile: Profile) -> float:
    assert profile.manifest.touched is not None
    return profile.manifest.touched[2]


def unmeant(profile: Profile) -> float:
    assert profile.manifest.unmeant is not None
    return profile.manifest.unmeant[2]


def made(states: LayerStates, background: LayerStates | None, **settings: object) -> Profile:
    gating = Gating(**settings)  # type: ignore[arg-type]
    return fine_profile("p", [(states, class_means(states))], MAPPING, background=[background], gating=gating)


def test_a_gate_of_two_words_steers_all_other_words_and_that_is_refused(
    states: LayerStates, background: LayerStates
) -> None:
    with pytest.raises(
        SettingError, match=r"layer 2: .* steer 88\.9% of the positions .* not meant for; allowed is 5%"
    ):
        made(states, background, background_concepts=0)
    with pytest.warns(ConceptWarning, match=r"would steer 88\.9%"):
        profile = made(states, background, background_concepts=0, force=True)
    assert unmeant(profile) == pytest.approx(240 / 270)  # all but the 30 states of person


def test_what_is_not_meant_falls_to_concepts_of_the_background(states: LayerStates, background: LayerStates) -> None:
    profile = made(states, background)
    assert not steered(profile, background).any()
    assert steered(profile, states).tolist() == [label == "man" for label in states.labels]
    tensors = rows_of(profile)
    assert 2 < len(tensors.centroids) <= 2 + 60 // 5
    assert not tensors.vectors[2:].any()
    # 40 of 70 states of the rule, of 70 + 60 × 4 positions.
    assert touched(profile) == pytest.approx(40 / 310)
    assert unmeant(profile) == 0
    assert profile.manifest.shares is not None
    assert sum(profile.manifest.shares[2]) == pytest.approx(1)
    assert list(profile.manifest.shares[2][:2]) == pytest.approx([40 / 70, 30 / 70])


def test_the_shares_are_weighted_by_the_positions_that_a_state_stands_for(
    states: LayerStates, background: LayerStates
) -> None:
    heavy = replace(background, weights=np.array([1.0] * 40 + [10.0] * 20))
    within = Gating(gate=Gate(max_distance=7.0), background_concepts=0, force=True)
    with pytest.warns(ConceptWarning):
        profile = fine_profile("p", [(states, class_means(states))], MAPPING, background=[heavy], gating=within)
    weights = np.concatenate([states.weights, heavy.weights])
    meant = np.array([*(label == "man" for label in states.labels), *[False] * 60])
    on = np.concatenate([steered(profile, states), steered(profile, heavy)])
    assert 0 < on[70:].sum() < 60
    assert touched(profile) == pytest.approx(weights[on].sum() / weights.sum())
    assert unmeant(profile) == pytest.approx(weights[on & ~meant].sum() / weights[~meant].sum())


@pytest.mark.filterwarnings("ignore:layer 2. the profile would steer")
def test_a_state_counts_for_all_that_a_cap_left_out_of_its_label(states: LayerStates, background: LayerStates) -> None:
    few = states.at(np.array([*range(10), *range(40, 70)]))
    capped = replace(few, weights=np.array([4.0] * 10 + [1.0] * 30))
    every = few.at(np.array([*list(range(10)) * 4, *range(10, 40)]))
    within, found = Gating(gate=Gate(max_distance=7.0), background_concepts=0, force=True), class_means(few)
    for mapping in (MAPPING, {"person": "man"}):
        one, other = (
            fine_profile("p", [(kept, found)], mapping, background=[background], gating=within).manifest
            for kept in (capped, every)
        )
        for estimate in ("touched", "unmeant", "shares"):
            assert getattr(one, estimate)[2] == pytest.approx(getattr(other, estimate)[2])
    assert one.shares is not None
    assert sorted(one.shares[2]) == pytest.approx((30 / 70, 40 / 70))


def test_no_row_is_added_where_no_other_word_would_be_steered(states: LayerStates, background: LayerStates) -> None:
    far = replace(background, values=(background.values * 0 + np.array([0, 12.0, 0, 0])).astype(np.float32))
    assert len(rows_of(made(states, far)).centroids) == 2


@pytest.mark.filterwarnings("ignore:layer 2. only 50%")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("share", [0.5, 0.99, 1.0])
def test_a_concept_steers_within_the_distance_that_a_share_of_its_own_states_keeps(
    states: LayerStates, background: LayerStates, share: float, metric: str
) -> None:
    gate = Gate(metric=metric)  # type: ignore[arg-type]
    profile = made(states, background, limit=share, gate=gate, background_concepts=0, force=True, most_unmeant=1.0)
    limits = profile.manifest.gate.limits  # type: ignore[union-attr]
    assert limits is not None
    man = states.of({"man"})
    centre = rows_of(profile).centroids[[0] * 40]
    own = distances(states.values[man], centre, metric)  # type: ignore[arg-type]
    assert limits[2] == (pytest.approx(np.quantile(own, share)), None)
    assert steered(profile, states)[man].mean() == pytest.approx(share, abs=0.02)


def test_a_concept_with_few_states_gets_the_limit_of_all_that_are_steered(states: LayerStates) -> None:
    few = states.at(np.array([*range(40), *range(40, 52)]))
    profile = fine_profile("p", [(few, class_means(few))], {"man": "person", "person": "man"}, gating=Gating(limit=1.0))
    limits = profile.manifest.gate.limits  # type: ignore[union-attr]
    assert limits is not None
    centres = rows_of(profile).centroids[[0] * 40 + [1] * 12]
    apart = distances(few.values, centres)
    assert limits[2] == (pytest.approx(apart[:40].max()), pytest.approx(apart.max()))


def test_a_gate_that_decides_once_is_measured_at_the_ends_of_prompts(
    states: LayerStates, background: LayerStates
) -> None:
    at_ends = replace(states, positions=np.array([0] * 20 + [3] * 50))
    beside = replace(background, positions=np.array([0] * 5 + [2] * 55))
    once = {"gate": Gate(scope="sequence"), "background_concepts": 0, "most_unmeant": 1.0}
    profile = made(at_ends, beside, **once)
    assert touched(profile) == pytest.approx((20 + 5 * 4) / (20 + 5 * 4))
    assert unmeant(profile) == 1
    assert (
        made(
            replace(states, positions=np.full(70, 3)), replace(beside, positions=np.full(60, 2)), **once
        ).manifest.touched
        is None
    )


def test_a_label_that_speaks_of_the_whole_sample_is_meant_in_all_of_its_answer(
    states: LayerStates, background: LayerStates
) -> None:
    request = states.manifest.request.model_copy(update={"labels": "truth"})
    manifest = states.manifest.model_copy(update={"request": request})
    labelled = replace(states, manifest=manifest, sample_ids=tuple(f"s{i}" for i in range(70)))
    beside = replace(background, manifest=manifest, sample_ids=tuple(f"s{i}" for i in range(60)))
    profile = made(labelled, beside, background_concepts=0, most_unmeant=1.0)
    # The background of the first 40 samples, which are labelled man, is meant; that of the next 20 is not.
    assert touched(profile) == pytest.approx((40 + 60 * 4) / (70 + 60 * 4))
    assert unmeant(profile) == pytest.approx(80 / (30 + 80))


def test_a_profile_of_other_positions_promises_nothing(states: LayerStates, background: LayerStates) -> None:
    pairs = [(states, class_means(states))]
    profile = fine_profile("p", pairs, MAPPING, background=[background], positions="image")
    assert (profile.manifest.touched, profile.manifest.unmeant) == (None, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dataset_digest": "sha256:b"}, "data 'sha256:b', and the states"),
        ({"rule": "predicts:man,person"}, "rule 'predicts:man,person', and the states 'last-prompt'"),
        ({"prompt": "{question} Say it."}, "prompt '{question} Say it.', and the states '{question}'"),
    ],
)
def test_a_dictionary_of_other_states_is_refused_by_the_name_of_the_difference(
    states: LayerStates, change: dict[str, str], said: str
) -> None:
    found = class_means(states)
    other = replace(found, provenance=found.provenance.model_copy(update=change))
    with pytest.raises(SettingError, match="was not made from these states") as refused:
        fine_profile("p", [(states, other)], MAPPING)
    assert said in str(refused.value)
    with pytest.warns(ConceptWarning, match="was not made from these states"):
        fine_profile("p", [(states, other)], MAPPING, gating=Gating(force=True))


def test_another_chat_template_is_another_question(states: LayerStates) -> None:
    request = states.manifest.request.model_copy(update={"chat_template": "a" * 64})
    asked = replace(states, manifest=states.manifest.model_copy(update={"request": request}))
    found = class_means(asked)
    other = replace(found, provenance=found.provenance.model_copy(update={"chat_template": "b" * 64}))
    with pytest.raises(SettingError, match="chat template 'bbbbbbbbbbbb', and the states 'aaaaaaaaaaaa'"):
        fine_profile("p", [(asked, other)], MAPPING)
    fine_profile("p", [(asked, class_means(states))], MAPPING)  # one that does not say which it was


def test_concepts_are_paired_by_their_numbers(states: LayerStates, background: LayerStates) -> None:
    found = kmeans(states, 4)
    profile = fine_profile("p", [(states, found)], {3: 0}, background=[background])
    tensors = rows_of(profile)
    assert np.flatnonzero(tensors.vectors.any(axis=1)).tolist() == [3]
    np.testing.assert_allclose(tensors.centroids[3] + tensors.vectors[3], found.centroids[0], atol=1e-5)
    assert f"concept 3 ({found.labels[3]}) → concept 0 ({found.labels[0]})" in profile.manifest.description
    assert unmeant(profile) == 0
    for pairs in ({3: 4}, {-1: 0}, {2: 2}):
        with pytest.raises(SettingError, match="names no two concepts; the dictionary has the concepts 0 to 3"):
            fine_profile("p", [(states, found)], pairs)


def test_a_gated_profile_adds_the_one_vector_at_the_concepts_of_the_originals(
    states: LayerStates, background: LayerStates
) -> None:
    found = kmeans(states, 4)
    (vector,) = coarse_vectors([states], MAPPING)
    profile = gated_profile("p", [(states, found)], ["man"], [vector], background=[background])
    tensors = rows_of(profile)
    for concept, label in enumerate(found.labels):
        expected = vector.values if label == "man" else np.zeros(4)
        assert np.array_equal(tensors.vectors[concept], expected)
    assert not tensors.vectors[4:].any()
    assert not steered(profile, background).any()
    with pytest.raises(SettingError, match="give one for each dictionary's layer"):
        gated_profile("p", [(states, found)], ["man"], [SteeringVector(1, np.ones(4))])
    with pytest.raises(SettingError, match="no state stands for 'mann'"):
        gated_profile("p", [(states, found)], ["mann"], [vector])


@pytest.mark.parametrize("wrong", [{"limit": 1.5}, {"most_unmeant": -0.1}, {"background_concepts": -1}])
def test_gating_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError):
        Gating(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("original", "unmeant_share"), [("men", 1.0), ("rest", 0.0)])
def test_the_background_of_groups_of_words_is_meant_when_the_map_names_its_group(
    states: LayerStates, background: LayerStates, original: str, unmeant_share: float
) -> None:
    ours, others = (grouped(one, {"men": ("man",)}) for one in (states, background))
    met_at = met(ours, others, np.array([label == original for label in ours.labels]), "token")
    assert met_at is not None
    assert met_at.meant[met_at.background].tolist() == [unmeant_share == 0.0] * len(background.values)


def test_the_background_of_groups_of_a_column_is_meant_when_its_sample_is(
    states: LayerStates, background: LayerStates
) -> None:
    moods = {sample: "sad" if i % 2 else "glad" for i, sample in enumerate(states.sample_ids)}
    ours = grouped(labelled(states, Labels("mood", moods)), {"low": ("sad",)})
    met_at = met(ours, background, np.array([label == "low" for label in ours.labels]), "token")
    assert met_at is not None
    assert met_at.meant[met_at.background].tolist() == [moods[one] == "sad" for one in background.sample_ids]


def expected(profile: Profile) -> list[float]:
    """By the format's own words: of all positions that the gate decides at, the share of each concept."""
    assert profile.manifest.expected is not None
    return list(profile.manifest.expected[2])


@pytest.mark.filterwarnings("ignore:layer 2. only")
@pytest.mark.parametrize("gate", [Gate(), Gate(max_distance=0.9), Gate(metric="cosine", max_distance=0.004)])
def test_a_concept_is_expected_as_often_as_the_gate_will_choose_it(
    states: LayerStates, background: LayerStates, gate: Gate
) -> None:
    profile = made(states, background, gate=gate, background_concepts=3, most_unmeant=1.0)
    assert profile.manifest.gate is not None
    centroids = rows_of(profile).centroids
    counts = np.zeros(len(centroids))
    for found in (states, background):
        for value, weight in zip(found.values, found.weights, strict=True):
            k = int(nearest(value[None], centroids)[0])
            far = distances(value[None], centroids[[k]], gate.metric)[0]
            counts[k] += weight * (gate.max_distance is None or far <= gate.max_distance)
    assert expected(profile) == pytest.approx((counts / (70 + 240)).tolist())
    assert (sum(expected(profile)) < 0.99) == (gate.max_distance is not None)


def test_what_is_expected_is_unknown_where_the_gate_decides_at_positions_that_nobody_saw(
    states: LayerStates, background: LayerStates
) -> None:
    layers, settings = [(states, class_means(states))], Gating(most_unmeant=1.0)
    for positions, beside in (("answer", None), ("all", background), ("prompt", background)):
        profile = fine_profile("p", layers, MAPPING, background=[beside], gating=settings, positions=positions)  # type: ignore[arg-type]
        assert profile.manifest.expected is None


def test_a_profile_that_watches_adds_nothing_and_knows_the_shares(states: LayerStates, background: LayerStates) -> None:
    concepts = class_means(states)
    profile = watching_profile("p", [(states, concepts)], background=[background])
    assert adds_nothing(profile.manifest)
    assert not rows_of(profile).vectors.any()
    assert np.array_equal(rows_of(profile).centroids, concepts.centroids)
    assert (touched(profile), unmeant(profile)) == (0, 0)
    fallen = nearest(np.concatenate([states.values, background.values]), concepts.centroids)
    counts = np.bincount(fallen, np.concatenate([states.weights, background.weights]), 2)
    assert expected(profile) == pytest.approx((counts / counts.sum()).tolist())


def test_the_ends_of_prompts_are_all_that_a_gate_decides_at_that_decides_once(states: LayerStates) -> None:
    request = states.manifest.request.model_copy(update={"rule": "last-prompt"})
    at_ends = replace(
        states, positions=np.zeros(70, np.int64), manifest=states.manifest.model_copy(update={"request": request})
    )
    once = watching_profile("p", [(at_ends, class_means(at_ends))], gate=Gate(scope="sequence"))
    assert sorted(expected(once)) == pytest.approx([30 / 70, 40 / 70])
    assert watching_profile("p", [(at_ends, class_means(at_ends))]).manifest.expected is None
