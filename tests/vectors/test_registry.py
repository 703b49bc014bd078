"""A registry opens with every profile in it or not at all."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from trimtab.vectors import ModelIdentity, Profile, Registry, load_profile, save_profile
from trimtab.vectors.errors import FormatError, IntegrityError, ModelMismatchError, TrimtabError, UnknownProfileError


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


def test_what_can_be_no_profile_is_skipped_with_one_line_in_the_log(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / ".git").mkdir()
    (folder / ".polite.new-0011").mkdir()
    (folder / ".gone").symlink_to("nowhere")
    (folder / "README.md").write_text("about these profiles")
    (folder / "notes.txt").write_text("more")
    (folder / "lost+found").mkdir()
    (folder / "\x1b[2J").mkdir()
    with caplog.at_level("INFO", "vllm.trimtab"):
        assert Registry.open(folder).names == ("polite",)
    assert [record.getMessage() for record in caplog.records] == [
        r"profiles: skipped what can be no profile: \x1b[2J, .git, .gone, .polite.new-0011, README.md, "
        "lost+found, notes.txt"
    ]


def as_another_user(folder: Path) -> str:
    """What opening a registry says to a user who is neither its owner nor root."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom trimtab.vectors import Registry\n"
        "if os.getuid() == 0:\n    os.setgid(65534)\n    os.setuid(65534)\n"
        "try:\n    print(*Registry.open(Path(sys.argv[1])).names)\nexcept Exception as error:\n    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


@pytest.fixture
def shared(folder: Path) -> Iterator[Path]:
    """The registry where every user may come to; pytest's own folders are its user's alone."""
    with TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        copied = Path(shutil.copytree(folder, Path(root) / "profiles"))
        try:
            yield copied
        finally:
            for path in (copied, *copied.glob("*")):
                path.chmod(0o755)


def test_folders_that_may_not_be_read_are_skipped_or_one_sentence(shared: Path) -> None:
    (shared / "lost+found").mkdir()
    (shared / "lost+found").chmod(0)
    assert as_another_user(shared) == "polite"
    (shared / "polite").chmod(0)
    assert as_another_user(shared).startswith("polite/profile.json: may not be read by this user")
    (shared / "polite").chmod(0o755)
    (shared / "polite" / "profile.safetensors").chmod(0)
    assert as_another_user(shared).startswith("polite/profile.safetensors: may not be read by this user")
    shared.chmod(0)
    assert as_another_user(shared).startswith("profiles: cannot be listed (Permission denied)")


@pytest.mark.parametrize("target", ["nowhere", "polite-2"])
def test_a_link_to_nothing_is_one_sentence(folder: Path, target: str) -> None:
    (folder / "polite-2").symlink_to(target)
    with pytest.raises(FormatError, match=r"^polite-2: is a link to nothing that can be reached; take it away"):
        Registry.open(folder)


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


def test_a_file_that_is_a_link_to_nothing_is_one_sentence(folder: Path) -> None:
    (folder / "polite" / "profile.safetensors").unlink()
    (folder / "polite" / "profile.safetensors").symlink_to("../../blobs/gone")
    with pytest.raises(FormatError, match=r"^polite/profile\.safetensors: is a link to nothing; copy the file itself"):
        Registry.open(folder)


def test_two_profiles_for_different_models_are_refused_when_they_are_written_and_when_they_are_opened(
    folder: Path, fine: Profile, model: ModelIdentity
) -> None:
    def made_for(**changes: object) -> Profile:
        other = fine.manifest.base_model.model_copy(update=changes)
        return Profile(fine.manifest.model_copy(update={"base_model": other}), fine.tensors)

    tuned = made_for(fingerprint="sampled-sha256:" + "1" * 64)
    for other in (made_for(architecture="Qwen2VLForConditionalGeneration"), made_for(num_layers=4), tuned):
        with pytest.raises(
            ModelMismatchError, match=r"^gender-neutral: was made for .* and polite beside it for Llava"
        ):
            save_profile(other, folder / "gender-neutral")
    assert [path.name for path in folder.iterdir()] == ["polite"]
    save_profile(made_for(fingerprint=None), folder / "gender-neutral")  # an import fits all weights
    assert len(Registry.open(folder)) == 2
    save_profile(tuned, folder.parent / "gender-neutral")
    shutil.rmtree(folder / "gender-neutral")
    (folder.parent / "gender-neutral").rename(folder / "gender-neutral")
    with pytest.raises(ModelMismatchError, match="keep the profiles of each model in a folder of their own"):
        Registry.open(folder)


def test_a_profile_may_be_written_over_the_one_of_another_model(folder: Path, coarse: Profile) -> None:
    other = coarse.manifest.base_model.model_copy(update={"architecture": "LlamaForCausalLM"})
    profile = Profile(coarse.manifest.model_copy(update={"base_model": other}), coarse.tensors)
    save_profile(profile, folder / "polite", overwrite=True)
    assert Registry.open(folder)["polite"].manifest.base_model == other


def test_the_digest_of_a_registry_covers_every_byte_that_is_read(folder: Path, fine: Profile) -> None:
    """Any byte changed in any file between two reads either stops the second or changes nothing that is served."""
    save_profile(fine, folder / "gender-neutral")
    before = Registry.open(folder)
    manifests = {name: profile.manifest for name, profile in before.items()}
    noticed = 0
    for path in sorted(folder.glob("*/profile.*")):
        good = path.read_bytes()
        for position in range(0, len(good), 3):
            changed = bytearray(good)
            changed[position] ^= 1
            path.write_bytes(changed)
            try:
                after = Registry.open(folder)
            except TrimtabError:
                noticed += 1
                continue
            if after.digest == before.digest:
                assert {name: profile.manifest for name, profile in after.items()} == manifests
            else:
                noticed += 1
        path.write_bytes(good)
    assert noticed > 500
    assert Registry.open(folder).digest == before.digest


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
    with pytest.raises(
        FormatError, match=r"^polite: is a link out of the registry; only a snapshot of the Hub's cache"
    ):
        Registry.open(folder)


@pytest.fixture
def repository(folder: Path, tmp_path: Path) -> Path:
    """A repository in the Hub's cache: its snapshot holds links to blobs, as huggingface_hub makes them."""
    root = tmp_path / "hub" / "models--me--polite"
    snapshot = root / "snapshots" / ("0123" * 10)
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir()
    for number, path in enumerate(sorted((folder / "polite").iterdir())):
        path.rename(root / "blobs" / f"{number:064x}")
        (snapshot / path.name).symlink_to(f"../../blobs/{number:064x}")
    (folder / "polite").rmdir()
    return root


def test_a_snapshot_of_the_hub_loads(folder: Path, repository: Path) -> None:
    (snapshot,) = (repository / "snapshots").iterdir()
    assert load_profile(snapshot).name == "polite"
    (folder / "polite").symlink_to(snapshot)
    assert Registry.open(folder).names == ("polite",)


def test_a_snapshot_that_holds_many_profiles_is_a_registry(folder: Path, repository: Path) -> None:
    (snapshot,) = (repository / "snapshots").iterdir()
    (snapshot / "polite").mkdir()
    for path in [path for path in snapshot.iterdir() if path.is_symlink()]:
        (snapshot / "polite" / path.name).symlink_to(f"../{path.readlink()}")
        path.unlink()
    assert Registry.open(snapshot).names == ("polite",)


@pytest.mark.parametrize("way", ["another repository", "a folder in blobs", "blobs that are elsewhere", "no snapshot"])
def test_a_link_out_of_the_repository_is_refused(repository: Path, tmp_path: Path, way: str) -> None:
    (snapshot,) = (repository / "snapshots").iterdir()
    target = tmp_path / "hub" / "models--me--other" / "blobs" / "x"
    target.parent.mkdir(parents=True)
    tensors = snapshot / "profile.safetensors"
    blob = tensors.resolve()
    if way == "another repository":
        blob.rename(target)
        tensors.unlink()
        tensors.symlink_to(target)
    elif way == "a folder in blobs":
        (repository / "blobs" / "deeper").symlink_to(target.parent)
        blob.rename(target)
        tensors.unlink()
        tensors.symlink_to("../../blobs/deeper/x")
    elif way == "blobs that are elsewhere":
        (repository / "blobs").rename(tmp_path / "elsewhere")
        (repository / "blobs").symlink_to(tmp_path / "elsewhere")
    else:
        snapshot.rename(repository / "revision")
        snapshot = repository / "revision"
        (snapshot / "profile.json").unlink()
        (snapshot / "profile.json").symlink_to("../blobs/" + "0" * 63 + "1")
    with pytest.raises(FormatError, match=r"is a link out of its folder; only links within it, or from a snapshot"):
        load_profile(snapshot)


def test_a_registry_that_is_itself_a_link_is_fine(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(folder)
    assert Registry.open(tmp_path / "current").names == ("polite",)


def test_two_profiles_of_one_name_make_no_registry(coarse: Profile) -> None:
    with pytest.raises(FormatError, match="there twice"):
        Registry([coarse, coarse])
