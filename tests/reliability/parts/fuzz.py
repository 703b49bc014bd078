"""Profile folders that were spoiled in a hundred thousand ways: none is served as what it is not, none stops a server.

mutations: folders tried. refused: those that do not load. unchanged: those that still say the same, in every field and
tensor. valid: those that are another valid profile, with another digest. accepted: those that loaded though they break
a rule of the format, or under the digest of another profile: none. crashed: those that ended in another error than
trimtab's own: none.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from tests.reliability.mutations import MANIFEST, MUTATIONS, TENSORS, Folder
from tests.reliability.rules import broken
from trimtab.vectors import AlphaRange, Gate, ModelIdentity, Profile, SteeringVector, load_profile, save_profile
from trimtab.vectors.errors import ProfileError
from trimtab.vectors.profile import named_tensors

WHOLE = 100_000
_MEMORY = Path("/dev/shm")
_SHOWN = 20


def run(work: Path, share: float) -> dict[str, Any]:
    # In memory where that can be: each mutation is written, and a disk would be most of the time.
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else work) as folder:
        return _run(Path(folder), round(WHOLE * share))


def _run(folder: Path, count: int) -> dict[str, Any]:
    originals = [_read(save_profile(profile, folder / "whole" / profile.name)) for profile in _profiles()]
    tally, wrong = Counter[str](), []
    for number in tqdm(range(count), "fuzz", mininterval=5):
        rng = random.Random(number)
        original = rng.choice(originals)
        mutation = rng.choice(MUTATIONS)
        spoiled = mutation(original.files, rng)
        outcome = _try(folder / "p", spoiled, original)
        tally[outcome.kind] += 1
        if outcome.says:
            wrong.append(f"mutation {number} ({mutation.__name__}): {outcome.says}")
    kinds = ("refused", "unchanged", "valid", "accepted", "crashed")
    return {"mutations": count, **{kind: tally[kind] for kind in kinds}, "wrong": wrong[:_SHOWN]}


@dataclass
class _Original:
    files: Folder
    profile: Profile


@dataclass
class _Outcome:
    kind: str
    says: str = ""


def _try(folder: Path, files: Folder, original: _Original) -> _Outcome:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    try:
        profile = load_profile(folder)
        digest, content = profile.digest, profile.content_digest
    except ProfileError as error:
        lone = "\n" in str(error) or len(str(error)) > 2000
        return _Outcome("crashed", f"its message is no sentence: {error}") if lone else _Outcome("refused")
    except Exception as error:
        return _Outcome("crashed", f"{type(error).__name__}: {error}")
    if rules := broken(folder):
        return _Outcome("accepted", f"it loaded, but {'; '.join(rules)}")
    same_served, same_all = _same_served(profile, original.profile), _same_manifest(profile, original.profile)
    if digest == original.profile.digest and not same_served:
        return _Outcome("accepted", "it serves other numbers under the same digest")
    if content == original.profile.content_digest and not (same_served and same_all):
        return _Outcome("accepted", "it says something else under the same content digest")
    return _Outcome("unchanged" if same_served and same_all else "valid")


def _same_served(one: Profile, other: Profile) -> bool:
    """Whether two profiles add the same numbers at the same positions."""
    ones, others = named_tensors(one), named_tensors(other)
    fields = ("kind", "positions", "gate")
    return (
        ones.keys() == others.keys()
        and all(ones[name].tobytes() == others[name].tobytes() for name in ones)
        and all(ones[name].shape == others[name].shape for name in ones)
        and all(getattr(one.manifest, field) == getattr(other.manifest, field) for field in fields)
    )


def _same_manifest(one: Profile, other: Profile) -> bool:
    return one.manifest.model_dump(exclude={"sha256"}) == other.manifest.model_dump(exclude={"sha256"})


def _read(folder: Path) -> _Original:
    return _Original({name: (folder / name).read_bytes() for name in (MANIFEST, TENSORS)}, load_profile(folder))


def _profiles() -> list[Profile]:
    model = ModelIdentity(architecture="Llama", hidden_size=4, num_layers=3, fingerprint="sampled-sha256:" + "0f" * 32)
    rows: npt.NDArray[np.float32] = np.arange(12, dtype=np.float32).reshape(3, 4)
    layers: dict[int, tuple[npt.ArrayLike, npt.ArrayLike]] = {
        1: (rows, -rows),
        2: (rows[:2], rows[:2] / 3),
    }
    coarse = [SteeringVector(2, np.array([1.0, -2.0, 0.5, 0.0])), SteeringVector(0, np.array([0.0, 0.0, 3.0, 4.0]))]
    range_ = AlphaRange(default=1.0, min=-1.0, max=1.5)
    gate = Gate(limits={1: (1.0, None, 3.0)}, max_distance=2.5)
    return [
        Profile.coarse("polite", coarse, model=model, hidden_norms={0: 10.0, 2: 20.0}),
        Profile.fine("neutral", layers, model=model, gate=Gate(max_distance=2.5), alpha=range_),
        Profile.fine("limited", layers, model=model, gate=gate, shares={1: (0.5, 0.2, 0.3)}, touched={1: 0.4}),
    ]
