from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.offline.test_dictionary import clouds
from tests.offline.worlds import write_data
from trimtab.offline.concepts import class_means, kmeans
from trimtab.offline.concepts.relabel import relabelled
from trimtab.offline.errors import DataError, SettingError
from trimtab.offline.models import Reader
from trimtab.offline.states import LastPrompt, Predicts, load_states, represent
from trimtab.offline.states.relabel import Labels, labelled, labels_of_file, labels_of_samples, relabel
from trimtab.offline.states.store import LayerStates, load_background, open_manifest, verify_states
from trimtab.offline.steering import coarse_profile, fine_profile
from trimtab.offline.steering.gates import met
from trimtab.vectors.profile import CoarseLayer, FineLayer

TYPE_OF = {"yes": "yes/no", "no": "yes/no", "two": "number", "three": "number"}


def with_samples(states: LayerStates) -> tuple[LayerStates, Labels]:
    """The states as of one sample each, and the types of these samples."""
    ids = tuple(f"s{i}" for i in range(len(states.labels)))
    types = {one: TYPE_OF[label] for one, label in zip(ids, states.labels, strict=True)}
    return replace(states, sample_ids=ids), Labels("type", types)


def test_states_get_the_label_of_their_sample() -> None:
    states, types = with_samples(clouds())
    typed = labelled(states, types)
    assert typed.labels == tuple(TYPE_OF[label] for label in states.labels)
    assert np.array_equal(typed.values, states.values)
    assert typed.manifest.request.labels == "type"


def test_states_of_samples_without_a_label_are_left_out() -> None:
    states, types = with_samples(clouds())
    few = Labels("judge.csv", {one: types.of[one] for one in ("s3", "s0")})
    assert labelled(states, few).sample_ids == ("s0", "s3")
    with pytest.raises(
        DataError, match=r"none of the 1 labelled samples.*called like 's0', the labelled ones like 'x'"
    ):
        labelled(states, Labels("judge.csv", {"x": "yes"}))


def test_the_coarse_vector_of_types_leads_from_all_of_the_one_to_all_of_the_other() -> None:
    states, types = with_samples(clouds(spread=2.0))
    typed = labelled(states, types)
    profile = coarse_profile("to-yesno", [typed], {"number": "yes/no"})
    tensors = profile.tensors[2]
    assert isinstance(tensors, CoarseLayer)
    number, yes_no = (states.values[states.of(words)].mean(axis=0) for words in ({"two", "three"}, {"yes", "no"}))
    np.testing.assert_allclose(number + tensors.vector, yes_no, atol=1e-5)


@pytest.mark.parametrize("k", [None, 6])
def test_the_fine_profile_of_types_moves_each_concept_to_the_nearest_of_the_target_type(k: int | None) -> None:
    states, types = with_samples(clouds())
    typed = labelled(states, types)
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
    states, types = with_samples(clouds())
    dictionary = kmeans(states, 4)
    typed = relabelled(dictionary, labelled(states, types))
    assert np.array_equal(typed.centroids, dictionary.centroids)
    assert typed.labels == tuple(TYPE_OF[label] for label in dictionary.labels)
    assert typed.counts.sum() == len(states.values)
    same = relabelled(dictionary, states)
    assert same.labels == dictionary.labels
    assert np.array_equal(same.counts, dictionary.counts)
    assert np.array_equal(same.purity, dictionary.purity)
    alone = relabelled(dictionary, states.at(np.flatnonzero(states.of({"yes"}))))
    assert [label for label in alone.labels if label] == ["yes", "yes"]


@pytest.fixture(scope="module")
def made(llama_reader: Reader, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 20 samples in three shards: data.jsonl, and their states in reps."""
    folder = tmp_path_factory.mktemp("relabel")
    data = write_data(folder / "data", 20, pictured=False)
    represent(llama_reader, data, Predicts(), [1, 2], folder / "reps", batch_size=1, max_new_tokens=6)
    return folder


def test_a_folder_of_states_is_written_with_other_labels(made: Path, tmp_path: Path) -> None:
    before, data = load_states(made / "reps", 2), made / "data" / "data.jsonl"
    labels = labels_of_samples(data, "type", before.manifest.request.data)
    manifest = relabel(made / "reps", labels, tmp_path / "typed")
    after = load_states(tmp_path / "typed", 2)
    assert np.array_equal(after.values, before.values)
    assert (after.sample_ids, after.tokens.tolist()) == (before.sample_ids, before.tokens.tolist())
    assert after.positions.tolist() == before.positions.tolist()
    assert after.labels == tuple("other" if int(one[1:]) % 2 else "number" for one in before.sample_ids)
    assert (manifest.request.labels, manifest.format_version) == ("type", 2)
    assert manifest.request.model_copy(update={"labels": None}) == before.manifest.request
    assert verify_states(tmp_path / "typed") == manifest


def test_background_states_keep_their_words_and_go_with_their_samples(made: Path, tmp_path: Path) -> None:
    before = load_background(made / "reps", 2)
    relabel(made / "reps", Labels("mood", {f"s{i}": "sad" for i in range(10)}), tmp_path / "sad")
    after = load_background(tmp_path / "sad", 2)
    assert before is not None
    assert after is not None
    kept = before.at(np.array([i for i, one in enumerate(before.sample_ids) if int(one[1:]) < 10], np.int64))
    assert 0 < len(kept.labels) < len(before.labels)
    assert (after.labels, after.sample_ids, after.weights.tolist()) == (
        kept.labels,
        kept.sample_ids,
        kept.weights.tolist(),
    )
    assert np.array_equal(after.values, kept.values)
    assert set(load_states(tmp_path / "sad", 2).labels) == {"sad"}


def test_parts_are_relabelled_as_parts(llama_reader: Reader, made: Path, tmp_path: Path) -> None:
    data = made / "data" / "data.jsonl"
    for number in (1, 2):
        represent(llama_reader, data, Predicts(), [2], tmp_path / "parts", part=(number, 2), max_new_tokens=6)
    labels = Labels("mood", {f"s{i}": "sad" for i in range(0, 20, 2)})  # of the first part alone
    manifest = relabel(tmp_path / "parts", labels, tmp_path / "sad")
    assert manifest == verify_states(tmp_path / "sad")
    before, after = load_states(tmp_path / "parts", 2), load_states(tmp_path / "sad", 2)
    kept = before.at(np.array([i for i, one in enumerate(before.sample_ids) if int(one[1:]) % 2 == 0]))
    assert after.sample_ids == kept.sample_ids
    assert np.array_equal(after.values, kept.values)
    assert set(after.labels) == {"sad"}
    with pytest.raises(DataError, match="exists already"):
        relabel(tmp_path / "parts", labels, tmp_path / "sad")
    with pytest.raises(DataError, match="called like 's0', the labelled ones like 'x'"):
        relabel(tmp_path / "parts", Labels("mood", {"x": "sad"}), tmp_path / "none")
    assert not list((tmp_path / "none").rglob("manifest.json"))


def test_states_stand_for_what_a_cap_left_out_also_under_other_labels(
    llama_reader: Reader, made: Path, tmp_path: Path
) -> None:
    data = made / "data" / "data.jsonl"
    asked = {"batch_size": 1, "max_new_tokens": 6}
    represent(llama_reader, data, Predicts(), [2], tmp_path / "few", most_per_label=2, **asked)  # type: ignore[arg-type]
    types = labels_of_samples(data, "type", open_manifest(made / "reps").request.data)
    relabel(tmp_path / "few", types, tmp_path / "typed")
    before, after = load_states(tmp_path / "few", 2), load_states(tmp_path / "typed", 2)
    assert max(before.weights) > 1
    assert sum(before.weights) == pytest.approx(len(load_states(made / "reps", 2).labels))
    assert after.weights.tolist() == before.weights.tolist()
    assert open_manifest(tmp_path / "typed").stand_for == {}


def test_the_background_of_a_sample_whose_states_a_cap_left_out_is_meant_as_its_label_says(
    llama_reader: Reader, made: Path, tmp_path: Path
) -> None:
    data = made / "data" / "data.jsonl"
    found = []
    for most in (None, 1):
        out = tmp_path / str(most)
        represent(llama_reader, data, LastPrompt(), [2], out, labels="type", most_per_label=most, max_new_tokens=6)
        states, background = load_states(out, 2), load_background(out, 2)
        assert background is not None
        for_what = met(states, background, states.of({"number"}), "token", {"number"})
        assert for_what is not None
        found.append((for_what.weights @ for_what.meant, for_what.weights.sum()))
        assert for_what.meant[for_what.background].tolist() == [int(one[1:]) % 2 == 0 for one in background.sample_ids]
    assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("judge.jsonl", '{"id": "s1", "label": "Did it"}\n\n{"id": "s12", "label": true, "why": ["…"]}\n'),
        ("judge.csv", "\ufefflabel,id\r\nDid  it,s1\r\ntrue,s12\r\n"),
    ],
)
def test_a_judges_file_labels_the_samples_that_it_names(made: Path, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, "utf-8", newline="")
    labels = labels_of_file(tmp_path / name)
    manifest = relabel(made / "reps", labels, tmp_path / "out")
    found = load_states(tmp_path / "out", 1)
    assert dict(zip(found.sample_ids, found.labels, strict=True)) == {"s1": "did it", "s12": "true"}
    assert (manifest.request.labels or "").startswith(f"{name} sha256:")
    left_out = {skip.id for skip in manifest.skipped if skip.reason.startswith("no label")}
    assert len(left_out) == 20 - 2 - len(open_manifest(made / "reps").skipped)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("j.jsonl", '{"id": "s1", "label": "a"}\n{"id": "s1", "label": "b"}', "line 2: names the sample 's1'"),
        ("j.jsonl", '{"id": "s1"}', "line 1: needs an id and a label"),
        ("j.jsonl", '{"id": "s1", "label": " "}', "line 1: needs an id and a label"),
        ("j.jsonl", "[1]", "line 1: is a JSON list"),
        ("j.jsonl", "id,label\ns1,a", "line 1: is not JSON"),
        ("j.jsonl", "\n", "names no sample"),
        ("j.jsonl", '{"id": "x", "label": "a"}', "called like 's0'"),
        ("j.csv", "id;label\ns1;a", "line 2: needs an id and a label, by these names"),
        ("j.csv", "id,label\ns1", "line 2: has 1 fields; expected 2"),
    ],
)
def test_a_judges_file_that_cannot_be_read_is_one_sentence(
    made: Path, tmp_path: Path, name: str, text: str, complaint: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=re.escape(complaint)):
        relabel(made / "reps", labels_of_file(tmp_path / name), tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_the_models_own_words_and_a_folder_that_exists_are_refused(made: Path) -> None:
    digest = open_manifest(made / "reps").request.data
    with pytest.raises(SettingError, match="--label answer"):
        labels_of_samples(made / "data" / "data.jsonl", "answer", digest)
    with pytest.raises(DataError, match="no sample has a label 'wether'; did you mean 'weather'"):
        labels_of_samples(made / "data" / "data.jsonl", "wether", digest)
    with pytest.raises(DataError, match="exists already"):
        relabel(made / "reps", Labels("x", {"s1": "a"}), made / "reps")
