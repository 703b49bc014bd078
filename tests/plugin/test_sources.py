"""Profiles of a URL or of the Hub become a folder, which is never emptied or half changed by what goes wrong there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.hub import COMMIT, in_cache
from tests.plugin.rolling import Rolling, run, version
from trimtab.plugin.control.refresh import Refresh
from trimtab.plugin.control.sources import Mirror, local_folder
from trimtab.plugin.errors import StartupError
from trimtab.vectors import ModelIdentity, Profile, Registry, save_profile
from trimtab.vectors.format import MANIFEST_FILE
from trimtab.vectors.manifest import TENSOR_FILE

URL = "memory://shelf/profiles"


@pytest.fixture
def shelf(folder: Path) -> Iterator[fsspec.AbstractFileSystem]:
    """A remote place that holds the profiles of `folder`."""
    files = fsspec.filesystem("memory")
    files.put(str(folder), "/shelf/profiles", recursive=True)
    yield files
    files.rm("/shelf", recursive=True)


def put(shelf: fsspec.AbstractFileSystem, profile: Profile, tmp_path: Path) -> None:
    made = save_profile(profile, tmp_path / "made" / profile.name, overwrite=True)
    for path in made.iterdir():
        shelf.put(str(path), f"/shelf/profiles/{profile.name}/{path.name}")


def test_a_url_is_copied_as_it_is(shelf: fsspec.AbstractFileSystem, folder: Path, tmp_path: Path) -> None:
    copy, mirror = local_folder(URL, tmp_path / "copy")
    assert mirror is not None
    assert Registry.open(copy).digest == Registry.open(folder).digest


def test_a_server_follows_a_url(
    shelf: fsspec.AbstractFileSystem, model: ModelIdentity, model_folder: Path, tmp_path: Path
) -> None:
    copy, mirror = local_folder(URL, tmp_path / "copy")
    server = Rolling(copy, model_folder, tmp_path / "state", mirror=mirror)
    refresh = Refresh(server.rollout, 1, None)
    assert run(refresh.once()) == []
    assert server.now().counter == 1
    new = version(model, 7.0)
    put(shelf, new, tmp_path)
    shelf.rm("/shelf/profiles/brief", recursive=True)
    assert run(refresh.once()) == []
    assert server.now().registry["polite"].digest == new.digest
    assert "brief" not in server.now().registry
    counter = server.now().counter
    assert run(refresh.once()) == []
    assert server.now().counter == counter


@pytest.mark.parametrize("gone", ["/shelf/profiles", "everything in it"])
def test_a_place_that_is_away_or_empty_changes_nothing(
    shelf: fsspec.AbstractFileSystem, tmp_path: Path, gone: str
) -> None:
    copy, mirror = local_folder(URL, tmp_path / "copy")
    assert mirror is not None
    before = Registry.open(copy).digest
    shelf.rm("/shelf/profiles", recursive=True)
    if gone == "everything in it":
        shelf.mkdir("/shelf/profiles")
    (problem,) = mirror.pull()
    assert URL in problem
    assert Registry.open(copy).digest == before
    shelf.makedirs("/shelf/profiles", exist_ok=True)


def test_a_profile_without_tensors_is_told_and_the_copy_of_before_stays(
    shelf: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    copy, mirror = local_folder(URL, tmp_path / "copy")
    assert mirror is not None
    before = Registry.open(copy).digest
    shelf.rm(f"/shelf/profiles/polite/{TENSOR_FILE}")
    (problem,) = mirror.pull()
    assert f"polite/{TENSOR_FILE}" in problem
    assert Registry.open(copy).digest == before


def test_one_profile_can_be_fetched_though_another_is_broken(
    shelf: fsspec.AbstractFileSystem, model: ModelIdentity, tmp_path: Path
) -> None:
    copy, mirror = local_folder(URL, tmp_path / "copy")
    assert mirror is not None
    new = version(model, 7.0)
    put(shelf, new, tmp_path)
    shelf.rm(f"/shelf/profiles/brief/{TENSOR_FILE}")
    assert mirror.pull("polite") == []
    assert Registry.open_one(copy, "polite").digest == new.digest
    assert Registry.open_one(copy, "brief")


def test_a_file_that_is_too_large_is_not_fetched(
    shelf: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(type(shelf), "cat_file", lambda self, path, **more: fetched.append(path))
    with shelf.open(f"/shelf/profiles/polite/{MANIFEST_FILE}", "wb") as file:
        file.write(b" " * (1 << 21))
    with pytest.raises(StartupError, match=r"polite/profile\.json: has 2,097,152 bytes"):
        local_folder(URL, tmp_path / "copy")
    assert not any("polite" in path and MANIFEST_FILE in path for path in fetched)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("ftp://me:secret@host/profiles", "holds a user or a password"),
        ("nothing-like-it://host/profiles", "cannot be opened"),
        ("memory://not-there", "cannot be listed"),
        ("hf://org/name", "names no commit"),
        ("hf://org/name@main", "names no commit"),
        (f"hf://org/name@{COMMIT}", "cannot be fetched"),
    ],
)
def test_a_source_that_cannot_be_used_stops_the_start(
    source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(StartupError, match=said) as raised:
        local_folder(source, tmp_path / "copy")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("whole", [False, True], ids=["a repository of profiles", "a repository that is one profile"])
def test_a_pinned_commit_of_the_hub_is_served_from_its_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    held = folder / "polite" if whole else folder
    in_cache(held, tmp_path / "hub" / "models--org--name")
    found, mirror = local_folder(f"hf://org/name@{COMMIT}", tmp_path / "copy")
    assert mirror is None  # a commit does not change
    assert list(Registry.open(found)) == (["polite"] if whole else sorted(os.listdir(folder)))
    assert local_folder(f"hf://org/name@{COMMIT}", tmp_path / "copy")[0] == found  # the next start finds its link


def test_a_url_with_a_password_is_never_kept() -> None:
    with pytest.raises(StartupError) as raised:
        Mirror("sftp://me:secret@host/profiles", Path("copy"))
    assert "secret" not in str(raised.value)
