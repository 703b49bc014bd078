"""Where profiles come from when they lie in no folder of this machine: a repository of the Hub, or any URL of fsspec.

    hf://ORG/NAME@COMMIT             one commit of a repository that holds profile folders, or is one profile
    s3://bucket/profiles, gs://…     a folder of profile folders, looked at again at each rescan

Both end as a folder on this machine, so that everything else knows folders only.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trimtab.vectors import load_profile
from trimtab.vectors.decode import MAX_JSON_BYTES, MAX_TENSOR_BYTES
from trimtab.vectors.errors import FormatError, ProfileError
from trimtab.vectors.files import write_folder
from trimtab.vectors.format import CARD_FILE, MANIFEST_FILE
from trimtab.vectors.manifest import TENSOR_FILE, check_name

from ..errors import StartupError

__all__ = ["Mirror", "local_folder"]

logger = logging.getLogger("vllm.trimtab")

_HUB = re.compile(r"hf://(?P<repository>[^/@]+/[^/@]+)@(?P<commit>[0-9a-f]{40})/?")
_MOST_BYTES = {MANIFEST_FILE: MAX_JSON_BYTES, TENSOR_FILE: MAX_TENSOR_BYTES, CARD_FILE: MAX_JSON_BYTES}
_NEEDED = (MANIFEST_FILE, TENSOR_FILE)


def local_folder(source: str, home: Path) -> tuple[Path, Mirror | None]:
    """The folder of profiles that `source` names, on this machine.

    home: where a copy may lie. The second is what brings the copy up to date, or None where nothing can change in it
    by itself.

    Raises:
        StartupError: the source cannot be read, or is not written as it has to be.
    """
    if "://" not in source:
        return Path(source), None
    if source.startswith("hf://"):
        return _of_the_hub(source, home), None
    mirror = Mirror(source, home)
    if problems := mirror.pull():
        raise StartupError(f"the profiles of {source} cannot be fetched: {'; '.join(problems)}")
    return home, mirror


class Mirror:
    """A copy of the profile folders at a URL.

    url: of any protocol that fsspec has. Its credentials come from where that protocol's package takes them, such as
    the environment, and never from the URL, which is written into logs. folder: the copy.
    """

    def __init__(self, url: str, folder: Path) -> None:
        """Raises a StartupError for a URL with a password, or of a protocol whose package is missing."""
        from fsspec.core import url_to_fs

        if "@" in urlsplit(url).netloc:
            raise StartupError(
                f"the {urlsplit(url).scheme} URL of --steering-profiles holds a user or a password, which logs would "
                "show; give credentials through the environment, as the package of that protocol says"
            )
        try:
            self._files, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise StartupError(f"--steering-profiles {url} cannot be opened: {error}") from error
        self.url, self.folder = url, folder
        self._seen: dict[str, tuple[str, ...]] = {}

    def pull(self, only: str | None = None) -> list[str]:
        """Fetch what has changed, and drop what is gone. Returns what went wrong, in sentences.

        only: the one profile to fetch; None for all. Each profile is replaced in one step. Where the URL cannot be
        listed, or holds no profile, all stays as it is.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._files.invalidate_cache()
            found = self._listed()
        except Exception as error:  # each protocol's package has errors of its own
            return [f"{self.url}: cannot be listed ({_said(error)})"]
        if only is not None:
            found = {name: files for name, files in found.items() if name == only}
        elif not found:
            return [f"{self.url}: holds no profile, so what was fetched stays"]
        problems = []
        for name, files in found.items():
            try:
                self._fetch(name, files)
            except ProfileError as error:
                problems.append(str(error))
            except Exception as error:  # as above
                problems.append(f"{self.url}: profile {name!r} cannot be fetched ({_said(error)})")
        for path in self.folder.iterdir() if only is None else ():
            if path.is_dir() and path.name not in found and not path.name.startswith("."):
                shutil.rmtree(path)
                self._seen.pop(path.name, None)
        return problems

    def _listed(self) -> dict[str, dict[str, Mapping[str, Any]]]:
        """By profile: what is known of its files, by their names."""
        found = {}
        for folder in self._files.ls(self._root, detail=True):
            name = str(folder["name"]).rstrip("/").rpartition("/")[2]
            try:
                check_name(name)
            except ValueError:
                continue
            if folder["type"] == "directory":
                inside = self._files.ls(folder["name"], detail=True)
                files = {str(one["name"]).rpartition("/")[2]: one for one in inside if one["type"] == "file"}
                if MANIFEST_FILE in files:
                    found[name] = {file: files[file] for file in _MOST_BYTES if file in files}
        return found

    def _fetch(self, name: str, files: Mapping[str, Mapping[str, Any]]) -> None:
        seen = tuple(self._files.ukey(one["name"]) for one in files.values())
        home = self.folder / name
        if self._seen.get(name) == seen and home.is_dir():
            return
        contents = {}
        for file, one in files.items():
            if one["size"] is not None and one["size"] > _MOST_BYTES[file]:
                raise FormatError(
                    f"{name}/{file}: has {one['size']:,} bytes; at most {_MOST_BYTES[file]:,} are fetched"
                )
            contents[file] = self._files.cat_file(one["name"], end=_MOST_BYTES[file])
        for file in _NEEDED:
            if file not in contents:
                raise FormatError(f"{name}/{file}: is missing; copy the profile there whole")
        write_folder(home, contents, overwrite=True, marker=MANIFEST_FILE)
        self._seen[name] = seen
        logger.info("trimtab: fetched profile %s from %s", name, self.url)


def _of_the_hub(source: str, home: Path) -> Path:
    from huggingface_hub import snapshot_download

    match = _HUB.fullmatch(source)
    if match is None:
        raise StartupError(
            f"--steering-profiles {source} names no commit of a repository, so what is served could change by itself; "
            "write hf://ORG/NAME@ and the 40 hex digits of the commit"
        )
    try:
        snapshot = Path(snapshot_download(match["repository"], revision=match["commit"]))
    except Exception as error:  # of the Hub, of HTTP, or of the disk
        raise StartupError(f"the profiles of {source} cannot be fetched: {_said(error)}") from error
    if not (snapshot / MANIFEST_FILE).exists():
        return snapshot
    home.mkdir(parents=True, exist_ok=True)
    link = home / load_profile(snapshot).name
    link.unlink(missing_ok=True)
    link.symlink_to(snapshot, target_is_directory=True)
    return home


def _said(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__
