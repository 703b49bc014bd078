"""The manifest of a folder of states: what capture and offline write, and what no manifest may say."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimtab.offline.errors import DataError
from trimtab.offline.states.store import load_states, verify_states
from trimtab.vectors.errors import FormatError
from trimtab.vectors.manifest import template_digest
from trimtab.vectors.states import SkippedSample, read_states_manifest, write_states_manifest

DIGEST = "0" * 64
GOLDEN = Path(__file__).parent / "golden" / "v1-states"


@pytest.fixture
def states(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "states"))


def test_a_folder_of_version_1_loads_whole() -> None:
    manifest = verify_states(GOLDEN)
    assert (manifest.rows, manifest.done, manifest.complete, manifest.labels) == (2, 3, True, ("man", "woman"))
    assert manifest.skipped == (SkippedSample(id="s2", reason="unreadable image (OSError)"),)
    loaded = load_states(GOLDEN, 2)
    assert (loaded.sample_ids, loaded.labels, loaded.values.tolist()) == (
        ("s0", "s1"),
        ("man", "woman"),
        [[0, 1, 2, 3], [4, 5, 6, 7]],
    )


def test_a_manifest_that_is_written_again_is_read_as_it_was(states: Path) -> None:
    manifest = read_states_manifest(states)
    write_states_manifest(states, manifest)
    assert read_states_manifest(states) == manifest
    assert [path.name for path in states.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "field",
    [
        {"chat_template": template_digest("{{ messages }}")},
        {"prompt": "Pretend you are sad.\n{question}"},
        {"labels": "truth"},
    ],
)
def test_a_template_a_prompt_or_labels_make_it_version_2(states: Path, field: dict[str, str]) -> None:
    manifest = read_states_manifest(states)
    request = manifest.request.model_copy(update=field)
    write_states_manifest(states, manifest.model_copy(update={"request": request}))
    found = read_states_manifest(states)
    assert (found.format_version, found.request) == (2, request)


def test_background_states_make_it_version_2_and_are_counted_apart(states: Path) -> None:
    manifest = read_states_manifest(states)
    request = manifest.request.model_copy(update={"background": 4})
    shards = tuple(shard.model_copy(update={"background": 3}) for shard in manifest.shards)
    write_states_manifest(states, manifest.model_copy(update={"request": request, "shards": shards}))
    found = read_states_manifest(states)
    assert (found.format_version, found.rows, found.background) == (2, 2, 3 * len(shards))


def test_what_a_skipped_sample_called_itself_is_written_as_text() -> None:
    assert SkippedSample(id="\x1b[2J", reason="a\nb") == SkippedSample(id="\\x1b[2J", reason="a\\nb")


def renamed(name: str) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        shard = manifest["shards"][0]
        shard["name"] = name
        shard["sha256"] = {f"{name}.{end}": DIGEST for end in ("safetensors", "jsonl")}

    return change


def set_in(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
        within: Any = manifest
        for part in parents:
            within = within[part]
        within[last] = value

    return change


ATTACKS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "no digests": (set_in("shards.0.sha256", {}), "sha256 must be given for rows-00000.jsonl and"),
    "background states that nobody asked for": (set_in("shards.0.background", 1), "disagree"),
    "background states that nobody kept": (set_in("request.background", 4), "disagree"),
    "states left out by no rule": (set_in("shards.0.left_out", {"man": 3}), "names no most_per_label"),
    "no state left out": (set_in("shards.0.left_out", {"man": 0}), r"shards\.0\.left_out\.man"),
    "one digest": (set_in("shards.0.sha256", {"rows-00000.safetensors": DIGEST}), "sha256 must be given"),
    "a digest of another file": (
        set_in("shards.0.sha256", {"rows-00000.safetensors": DIGEST, "rows-00001.jsonl": DIGEST}),
        "sha256 must be given",
    ),
    "a digest too many": (
        set_in("shards.0.sha256", dict.fromkeys(["rows-00000.safetensors", "rows-00000.jsonl", "/etc/passwd"], DIGEST)),
        "sha256 must be given",
    ),
    "a digest cut short": (set_in("shards.0.sha256", {"rows-00000.safetensors": "ab"}), "sha256"),
    "a shard elsewhere": (renamed("../other/rows-00000"), r"shards\.0\.name"),
    "a shard with an absolute name": (renamed("/tmp/rows-00000"), r"shards\.0\.name"),
    "a shard in a folder": (renamed("more/rows-00000"), r"shards\.0\.name"),
    "a shard behind a line end": (renamed("rows-00000\n"), "control characters"),
    "a shard with another alphabet's digits": (renamed("rows-٠٠٠٠٠"), r"shards\.0\.name"),
    "a shard that is the manifest": (renamed("manifest"), r"shards\.0\.name"),
    "two shards of one name": (
        lambda manifest: manifest.update(
            shards=[manifest["shards"][0], {**manifest["shards"][0], "start": 2, "stop": 3}]
        ),
        "two shards have one name",
    ),
    "a gap": (set_in("shards.1.start", 1), "begins at sample 1; expected 2"),
    "a shard of no samples": (set_in("shards.0.stop", 0), "which is none"),
    "more samples than were asked": (set_in("shards.1.stop", 9), "cover 9 samples of 3"),
    "negative rows": (set_in("shards.0.rows", -1), r"shards\.0\.rows"),
    "a layer that the model lacks": (set_in("request.layers", [6]), "must differ and lie below 6"),
    "a layer twice": (set_in("request.layers", [2, 2]), "must differ"),
    "an escape in a label": (set_in("labels", ["\x1b[2J"]), "control characters in the text"),
    "an escape in a key": (set_in("versions", {"\x1b[2J": "1"}), "control characters in the key"),
    "an unknown field": (set_in("hook", 1), "hook"),
    "another version": (set_in("format_version", 3), "format version 3"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_bad_manifest_is_refused(states: Path, attack: str) -> None:
    change, sentence = ATTACKS[attack]
    manifest = json.loads((states / "manifest.json").read_text())
    changed = copy.deepcopy(manifest)
    change(changed)
    assert changed != manifest
    (states / "manifest.json").write_text(json.dumps(changed))
    with pytest.raises(FormatError, match=rf"^states/manifest\.json: .*{sentence}"):
        read_states_manifest(states)
    with pytest.raises(DataError, match=sentence):
        verify_states(states)


@pytest.mark.parametrize("name", ["rows-00000.safetensors", "rows-00000.jsonl"])
def test_a_changed_byte_of_either_file_is_noticed(states: Path, name: str) -> None:
    data = bytearray((states / name).read_bytes())
    data[-2] ^= 1
    (states / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"{name}: is not what was written"):
        verify_states(states)


def test_a_manifest_that_is_a_link_out_of_its_folder_is_refused(states: Path) -> None:
    (states / "manifest.json").rename(states.parent / "elsewhere")
    (states / "manifest.json").symlink_to("../elsewhere")
    with pytest.raises(FormatError, match="link out of its folder"):
        read_states_manifest(states)
