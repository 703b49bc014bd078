"""Saving and loading: the same bytes come back, and nobody ever sees half a profile."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file

from trimtab.vectors import (
    AlphaRange,
    Gate,
    ModelIdentity,
    Profile,
    SteeringVector,
    load_profile,
    save_profile,
    verify_profile,
)
from trimtab.vectors.errors import FormatError, ModelMismatchError, ProfileError, printable
from trimtab.vectors.profile import Provenance

FILES = ["README.md", "profile.json", "profile.safetensors"]
SIZE = 3
MODEL = ModelIdentity(architecture="Llama", hidden_size=SIZE, num_layers=12)

text = st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from("\t\n")).filter(
    lambda text: printable(text.replace("\t", "").replace("\n", "")) == text.replace("\t", "").replace("\n", "")
)
keys = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=5)
entries = st.floats(-1e6, 1e6, width=32)
gates = st.builds(Gate, metric=st.just("euclidean"), max_distance=st.none() | st.floats(0, 1e9))
alphas = st.tuples(*[st.floats(-1e3, 1e3)] * 3).map(sorted).map(lambda a: AlphaRange(min=a[0], default=a[1], max=a[2]))
provenances = st.builds(
    Provenance,
    rule=st.none() | text,
    seed=st.none() | st.integers(0, 2**64),
    evaluation=st.dictionaries(keys, st.floats(allow_nan=False, allow_infinity=False) | text),
)
coarse_profiles = st.builds(
    lambda vectors, **fields: Profile.coarse(
        "p", [SteeringVector(layer, values) for layer, values in vectors.items()], model=MODEL, **fields
    ),
    st.dictionaries(st.integers(0, 11), arrays(np.float32, SIZE, elements=entries), min_size=1, max_size=3),
    description=text,
    positions=st.sampled_from(["answer", "prompt", "all", "image", "text"]),
    alpha=alphas,
    provenance=provenances,
)
fine_profiles = st.builds(
    lambda layers, **fields: Profile.fine("p", layers, model=MODEL, **fields),
    st.dictionaries(
        st.integers(0, 11),
        st.integers(1, 4).flatmap(lambda k: st.tuples(*[arrays(np.float32, (k, SIZE), elements=entries)] * 2)),
        min_size=1,
        max_size=3,
    ),
    gate=gates,
    alpha=alphas,
)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=40)
@given(coarse_profiles | fine_profiles)
def test_what_is_saved_loads_as_it_was_and_saves_to_the_same_bytes(profile: Profile) -> None:
    with TemporaryDirectory() as directory:
        first = save_profile(profile, Path(directory) / "first")
        loaded = load_profile(first)
        second = save_profile(loaded, Path(directory) / "second")
        assert content(first) == content(second)
        assert sorted(content(first)) == FILES
    assert loaded.digest == profile.digest
    assert loaded.manifest.model_copy(update={"sha256": {}}) == profile.manifest
    for layer, tensor in profile.tensors.items():
        for part, array in tensor.named.items():
            assert loaded.tensors[layer].named[part].tobytes() == array.tobytes()


def test_loaded_arrays_are_read_only_for_good(folder: Path) -> None:
    vector = load_profile(folder / "polite").tensors[2].named["vector"]
    with pytest.raises(ValueError, match="WRITEABLE"):
        vector.flags.writeable = True


def test_the_tensor_file_is_plain_safetensors_with_the_promised_names(fine: Profile, tmp_path: Path) -> None:
    save_profile(fine, tmp_path / "p")
    tensors = load_file(tmp_path / "p" / "profile.safetensors")
    assert {name: (array.shape, array.dtype.name) for name, array in tensors.items()} == {
        "layers.1.centroids": ((3, 4), "float32"),
        "layers.1.vectors": ((3, 4), "float32"),
    }


def test_saving_makes_the_folders_above_and_leaves_nothing_else_behind(coarse: Profile, tmp_path: Path) -> None:
    save_profile(coarse, tmp_path / "a" / "b" / "p")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["p"]


def test_a_saved_profile_can_be_read_by_another_user(coarse: Profile, tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        save_profile(coarse, tmp_path / "p")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "p").stat().st_mode) == 0o755
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in (tmp_path / "p").iterdir())


def test_what_exists_is_overwritten_only_on_request_and_as_a_whole(
    coarse: Profile, fine: Profile, tmp_path: Path
) -> None:
    save_profile(coarse, tmp_path / "p")
    before = content(tmp_path / "p")
    with pytest.raises(FormatError, match="exists already"):
        save_profile(fine, tmp_path / "p")
    assert content(tmp_path / "p") == before
    (tmp_path / "p" / "stale").touch()
    save_profile(fine, tmp_path / "p", overwrite=True)
    assert load_profile(tmp_path / "p").digest == fine.digest
    assert sorted(content(tmp_path / "p")) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_a_folder_that_holds_no_profile_is_never_overwritten(coarse: Profile, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "README.md").write_text("years of work")
    with pytest.raises(FormatError, match="no artefact"):
        save_profile(coarse, tmp_path / "thesis", overwrite=True)
    assert content(tmp_path / "thesis") == {"README.md": b"years of work"}


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_save_that_fails_midway_leaves_the_old_profile_and_no_rubbish(
    coarse: Profile, fine: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    save_profile(coarse, tmp_path / "p")
    before = content(tmp_path / "p")
    calls = 0

    def full_disk(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        assert load_profile(tmp_path / "p").digest == coarse.digest
        if calls == failing:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(ProfileError, match=r"^p: cannot be written: No space left"):
        save_profile(fine, tmp_path / "p", overwrite=True)
    assert content(tmp_path / "p") == before
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_when_the_last_rename_fails_the_old_profile_comes_back(
    coarse: Profile, fine: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_profile(coarse, tmp_path / "p")
    rename = Path.rename

    def fails_for_the_new(self: Path, target: Path) -> Path:
        if ".new-" in self.name:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new)
    with pytest.raises(ProfileError, match="Input/output error"):
        save_profile(fine, tmp_path / "p", overwrite=True)
    assert load_profile(tmp_path / "p").digest == coarse.digest
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_when_the_old_profile_cannot_even_be_put_back_it_is_kept_under_its_hidden_name(
    coarse: Profile, fine: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_profile(coarse, tmp_path / "p")
    rename = Path.rename

    def works_once(self: Path, target: Path) -> Path:
        if self.name == "p":
            return rename(self, target)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "rename", works_once)
    with pytest.raises(ProfileError, match="Input/output error"):
        save_profile(fine, tmp_path / "p", overwrite=True)
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith(".p.old-")
    assert load_profile(kept).digest == coarse.digest


def test_nothing_is_written_that_could_not_be_read_again(model: ModelIdentity, tmp_path: Path) -> None:
    vectors = [SteeringVector(0, np.ones(4))]
    for provenance, reason in [
        (Provenance(evaluation={"figure": float("nan")}), "cannot be written as JSON"),
        (Provenance(rule="x" * (1 << 20)), "at most 1,048,576"),
        (Provenance(rule="\x1b[2J"), "control characters in the text"),
        (Provenance(samples={"\x1b[2J": 1}), "control characters in the key"),
    ]:
        with pytest.raises(FormatError, match=reason):
            save_profile(Profile.coarse("p", vectors, model=model, provenance=provenance), tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architecture": "Qwen2VLForConditionalGeneration"}, "architecture Llava.*Qwen2VL"),
        ({"hidden_size": 8}, "hidden size 4 .*8"),
        ({"num_layers": 4}, "num layers 3 .*4"),
        ({"fingerprint": "sampled-sha256:" + "1" * 64}, "fingerprint"),
        ({"fingerprint": None}, "this model: unknown"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_profile_of_another_model_is_refused_and_the_difference_named(
    folder: Path, model: ModelIdentity, change: dict[str, object], named: str
) -> None:
    assert verify_profile(folder / "polite", model).name == "polite"
    with pytest.raises(ModelMismatchError, match=rf"^polite/profile\.json: made for another model: .*{named}"):
        verify_profile(folder / "polite", model.model_copy(update=change))


def test_an_import_without_a_fingerprint_fits_every_model_of_its_shape(model: ModelIdentity) -> None:
    imported = model.model_copy(update={"fingerprint": None})
    imported.check(model)
    imported.check(imported)
    with pytest.raises(ModelMismatchError, match="hidden size"):
        imported.check(model.model_copy(update={"hidden_size": 8}))
