"""Builds the demo's profiles with the offline CLI, from pictures of the train split.

Every command is printed as a user would type it, and run in this process: ten starts of Python would cost a minute.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from examples.tinyworld.data import MANIFEST, read_split, write_split
from examples.tinyworld.scene import Split
from examples.tinyworld.words import NEUTRAL
from trimtab.offline.cli.app import app

MIDDLE_LAYER, LAST_LAYER = 3, 5
VQA = {"yes->no": ("yes", "no"), "1->3": ("1", "3"), "white->black": ("white", "black")}
"""The paper's three steerings (docs/method.md §5): source answer and target answer."""
GENDER = "gender-neutral"
STRONGEST = 4.0

SCENES: dict[Split, int] = {"train": 200, "test": 80}
SEED = 0


def profile_name(steering: str, kind: str, layer: int) -> str:
    """The registered name of one of the VQA profiles, such as "yes-to-no-fine-5"."""
    return f"{steering.replace('->', '-to-')}-{kind}-{layer}"


def build(model: Path, out: Path) -> Path:
    """Writes data, representations, dictionaries and profiles below `out`; what is whole already is kept.

    Returns the folder of profiles. It gets its name only when every profile is in it.
    """
    for split, scenes in SCENES.items():
        data_folder(out / "data" / split, split, scenes)
    profiles, part = out / "profiles", out / "profiles.part"
    if _fits(profiles, model):
        return profiles
    for folder in (profiles, part, out / "reps", out / "dictionaries"):
        shutil.rmtree(folder, ignore_errors=True)
    train = out / "data" / "train"
    _answers(model, train, out, part)
    _captions(model, train, out, part)
    part.rename(profiles)
    return profiles


def _answers(model: Path, train: Path, out: Path, profiles: Path) -> None:
    reps = out / "reps" / "answers"
    layers = [f"--layer={layer}" for layer in (MIDDLE_LAYER, LAST_LAYER)]
    _trimtab("represent", model, train / "vqa.jsonl", "--rule=last-prompt", *layers, "--dtype=float32", "--out", reps)
    for layer in (MIDDLE_LAYER, LAST_LAYER):
        dictionary = out / "dictionaries" / f"answers-{layer}"
        _trimtab("dictionary", reps, "--layer", layer, "--method=class-means", "--min-count=5", "--out", dictionary)
        for steering in VQA if layer == LAST_LAYER else ["yes->no"]:
            _profiles(reps, layer, dictionary, {kind: profile_name(steering, kind, layer) for kind in _KINDS},
                      ["=".join(VQA[steering])], profiles)  # fmt: skip


def _captions(model: Path, train: Path, out: Path, profiles: Path) -> None:
    reps, dictionary = out / "reps" / "captions", out / "dictionaries" / "captions"
    what = ("--rule=predicts:*", "--layer", LAST_LAYER, "--dtype=float32")
    _trimtab("represent", model, train / "captions.jsonl", *what, "--out", reps)
    _trimtab("dictionary", reps, "--layer", LAST_LAYER, "--method=class-means", "--min-count=5", "--out", dictionary)
    names = {"fine": GENDER, "coarse": f"{GENDER}-coarse"}
    pairs = [f"{word}={neutral}" for word, neutral in NEUTRAL.items()]
    _profiles(reps, LAST_LAYER, dictionary, names, pairs, profiles)


_KINDS = ("coarse", "fine")


def _profiles(
    reps: Path, layer: int, dictionary: Path, names: dict[str, str], pairs: list[str], profiles: Path
) -> None:
    mapping = [f"--map={pair}" for pair in pairs]
    for kind, name in names.items():
        source = ["--dictionary", dictionary] if kind == "fine" else ["--layer", layer]
        _trimtab("profile", reps, f"--kind={kind}", *source, *mapping, f"--name={name}",
                 f"--alpha-max={STRONGEST}", "--registry", profiles)  # fmt: skip


def data_folder(folder: Path, split: Split, scenes: int) -> None:
    if (folder / MANIFEST).is_file():
        read_split(folder)
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_split(folder, split, scenes, SEED)


def _fits(profiles: Path, model: Path) -> bool:
    """Whether all profiles are there and were made for these weights."""
    from trimtab.vectors import ModelIdentity, Registry
    from trimtab.vectors.errors import ProfileError

    if not profiles.is_dir():
        return False
    try:
        Registry.open(profiles, ModelIdentity.of(model))
    except ProfileError:
        return False
    return True


def _trimtab(*words: object) -> None:
    command = [str(word) for word in words]
    print("$ trimtab " + shlex.join(command), flush=True)
    status = app(command, standalone_mode=False)
    if status:  # the CLI has said on stderr what is wrong
        raise SystemExit(status)
