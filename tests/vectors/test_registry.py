"""A registry opens with every profile in it or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.vectors import ModelIdentity, Profile, Registry, save_profile
from trimtab.vectors.errors import FormatError, IntegrityError, ModelMismatchError, UnknownProfileError


def test_a_registry_holds_its_profiles_by_name(folder: Path, fine: Profile, model: ModelIdentity) -> None:
    save_profile(fine, folder / "gender-neutral")
    registry = Registry.open(folder, model)
    assert registry.names == ("gender-neutral", "polite") == tuple(registry)
    assert len(registry) == 2
    assert "polite" in registry
    assert "impolite" not in registry
    assert registry["gender-neutral"].digest == fine.digest
    assert [profile.name for profile in registry.values()] == list(registry.names)


def test_armed_is_the_union_of_layers_with_the_largest_k_of_each(
    coarse: Profile, fine: Profile, model: ModelIdentity
) -> None:
    vectors = fine.tensors[1].named["vectors"]
    smaller = Profile.fine("smaller", {1: (vectors[:2], vectors[:2]), 2: (vectors[:2], vectors[:2])}, model=model)
    assert Registry([coarse]).armed() == {0: 1, 2: 1}
    assert Registry([coarse, fine]).armed() == {0: 1, 1: 3, 2: 1}
    assert Registry([coarse, fine, smaller]).armed() == {0: 1, 1: 3, 2: 2}
    assert Registry([smaller, fine, coarse]).armed() == {0: 1, 1: 3, 2: 2}


def test_an_unknown_name_is_an_error_that_names_the_nearest(coarse: Profile) -> None:
    with pytest.raises(UnknownProfileError, match=r"unknown profile 'pollite'; did you mean 'polite'\? loaded: polite"):
        Registry([coarse])["pollite"]


@pytest.mark.parametrize("name", ["none", "../polite", "polite/", "POLITE", "", "polite\0"])
def test_no_spelling_but_the_name_itself_finds_a_profile(coarse: Profile, name: str) -> None:
    with pytest.raises(UnknownProfileError):
        Registry([coarse])[name]


def test_files_and_dot_folders_in_a_registry_are_not_looked_at(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".polite.new-0011").mkdir()
    (folder / "README.md").write_text("about these profiles")
    assert Registry.open(folder).names == ("polite",)


def test_one_bad_profile_keeps_the_registry_shut(folder: Path, fine: Profile) -> None:
    save_profile(fine, folder / "gender-neutral")
    (folder / "gender-neutral" / "profile.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(IntegrityError, match=r"^gender-neutral/profile\.safetensors: "):
        Registry.open(folder)


def test_a_folder_without_a_profile_in_it_keeps_the_registry_shut(folder: Path) -> None:
    (folder / "notes").mkdir()
    with pytest.raises(FormatError, match=r"^notes/profile\.json: is missing"):
        Registry.open(folder)


def test_a_profile_of_another_model_keeps_the_registry_shut(folder: Path, model: ModelIdentity) -> None:
    with pytest.raises(ModelMismatchError, match=r"^polite/profile\.json: made for another model: num layers 3"):
        Registry.open(folder, model.model_copy(update={"num_layers": 4}))


def test_a_folder_is_named_as_its_profile(folder: Path) -> None:
    (folder / "polite").rename(folder / "Polite")
    with pytest.raises(FormatError, match=r"^Polite/profile\.json: is the profile 'polite'; rename its folder"):
        Registry.open(folder)


def test_a_missing_or_empty_registry_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"^profiles: is no folder; name the folder"):
        Registry.open(tmp_path / "profiles")
    with pytest.raises(FormatError, match="holds no profile; make one with"):
        Registry.open(tmp_path)


def test_a_profile_folder_that_is_a_link_to_elsewhere_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "polite").rename(tmp_path / "polite")
    (folder / "polite").symlink_to(tmp_path / "polite")
    with pytest.raises(FormatError, match=r"^polite: is a link out of the registry"):
        Registry.open(folder)


def test_a_registry_that_is_itself_a_link_is_fine(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(folder)
    assert Registry.open(tmp_path / "current").names == ("polite",)


def test_two_profiles_of_one_name_make_no_registry(coarse: Profile) -> None:
    with pytest.raises(FormatError, match="there twice"):
        Registry([coarse, coarse])
