"""The drift of concepts on a served model: it tells a shift of what the pictures show, and is quiet without one.

Requests ask which place a picture shows. A profile watches the ends of the prompts, whose dictionary was made from
other pictures. requests: of the same mix, whose choices are kept in out/drift, so that a run goes on where one ended.
same: the largest drift that the engine showed among them. detected_after_requests: how many of another mix, in which
most pictures show snow, until it showed more than 0.25, of 2,000 at most. shifted: the drift then. windows: drawn from
the choices that were kept. false_alarms: the share of them with more than 0.25, at most 0.01.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from examples.tinyworld.draw import draw
from tests.engine.asking import Ask, scene_of
from tests.engine.engine import ROOT, Engine
from tests.reliability.served import MODEL
from trimtab.offline.concepts import kmeans
from trimtab.offline.models import Reader
from trimtab.offline.states import LastPrompt, load_states, represent
from trimtab.offline.steering.watching import watching_profile
from trimtab.plugin.steps.drift import Window, stability_index
from trimtab.vectors import Gate, Profile, load_profile, save_profile

REQUESTS, SHIFTED, WINDOWS = 20_000, 2000, 1000
ALARM, MOST_FALSE = 0.25, 0.01
HOME = ROOT / "out" / "drift"
QUESTION, SHARE_KEPT = "what place is this?", 0.15
"""Of the pictures that show no snow, the share that stays in the other mix."""
_NAME, _LAYER, _K, _DATA = "watched", 5, 12, 1000
_SEATS, _AT_ONCE = 64, 40
_OTHER, _MADE_OF = 10_000_000, 20_000_000  # where the seeds of other pictures begin


def run(work: Path, share: float) -> dict[str, Any]:
    profile = _profile(work / "drift")
    expected = (profile.manifest.expected or {})[_LAYER]
    size = Window(_K + 1).size
    wanted = max(size + 5 * _AT_ONCE, round(REQUESTS * share))
    log = work / "drift.log"
    with Engine(log, MODEL, HOME / "profiles", max_num_seqs=_SEATS, max_model_len=256) as engine:
        kept, drifts = _same(engine, profile, wanted)
        after, shifted = _shifted(engine)
    windows = max(100, round(WINDOWS * share))
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(kept), (windows, size // _AT_ONCE + 1))
    found = [stability_index(kept[one].sum(axis=0), expected, len(one) * _AT_ONCE) for one in drawn]
    false = float(np.mean([one > ALARM for one in found]))
    wrong = []
    if max(drifts) > ALARM:
        wrong.append(f"the same mix has a drift of {max(drifts):.3f}")
    if after is None:
        wrong.append(f"{SHIFTED:,} requests of another mix have a drift of {shifted:.3f} only")
    if false > MOST_FALSE:
        wrong.append(f"{false:.1%} of {windows:,} windows of the same mix are an alarm")
    return {
        "requests": len(kept) * _AT_ONCE,
        "concepts": _K,
        "window": size,
        "same": max(drifts),
        "detected_after_requests": after,
        "shifted": shifted,
        "windows": windows,
        "largest_of_windows": max(found),
        "false_alarms": false,
        "wrong": wrong,
    }


def _profile(work: Path) -> Profile:
    """The profile that watches; made once, from questions about pictures that nobody is asked about."""
    home = HOME / "profiles" / _NAME
    if home.exists():
        return load_profile(home)
    shutil.rmtree(work, ignore_errors=True)
    (work / "images").mkdir(parents=True)
    lines = []
    for number in range(_DATA):
        draw(scene_of(_MADE_OF + number)).save(work / "images" / f"{number}.png")
        lines.append(json.dumps({"id": str(number), "question": QUESTION, "image": f"images/{number}.png"}))
    (work / "data.jsonl").write_text("\n".join(lines) + "\n")
    represent(Reader(MODEL, "float32", "cpu"), work / "data.jsonl", LastPrompt(), (_LAYER,), work / "states")
    states = load_states(work / "states", _LAYER)
    made = watching_profile(_NAME, [(states, kmeans(states, _K))], gate=Gate(scope="sequence"))
    save_profile(made, home)
    return made


def _asks(first: int, other_mix: bool = False) -> Iterator[Ask]:
    seed = first
    while True:
        if not other_mix or scene_of(seed).place == "snow" or random.Random(seed).random() < SHARE_KEPT:
            yield Ask(QUESTION, seed, steering=_NAME, max_tokens=1)
        seed += 1


def _same(engine: Engine, profile: Profile, wanted: int) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[float]]:
    """The choices of each forty requests, [N, K + 1], and the drifts that the engine showed among them."""
    file = HOME / f"{profile.digest[:12]}.jsonl"
    kept = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    drifts = [0.0]
    asks = _asks(len(kept) * _AT_ONCE)
    before = engine.call("concepts")
    # At least a window, so that the engine shows a drift of its own.
    missing = max(wanted - len(kept) * _AT_ONCE, Window(_K + 1).size)
    with file.open("a") as lines:
        for _ in tqdm(range(-(-missing // _AT_ONCE)), "the same mix", mininterval=10):
            engine.ask(list(islice(asks, _AT_ONCE)))
            now = engine.call("concepts")
            names = [f"{_NAME}/{_LAYER}/{concept}" for concept in (*range(_K), "outside")]
            kept.append([int(now[name] - before[name]) for name in names])
            lines.write(json.dumps(kept[-1]) + "\n")
            lines.flush()
            drifts.append(now.get(f"{_NAME}/{_LAYER}", 0.0))
            before = now
    return np.array(kept), drifts


def _shifted(engine: Engine) -> tuple[int | None, float]:
    """After how many requests of another mix the engine shows an alarm, None where it shows none; and the drift."""
    drift, asks = 0.0, _asks(_OTHER, other_mix=True)
    for number in tqdm(range(SHIFTED // _AT_ONCE), "another mix", mininterval=10):
        engine.ask(list(islice(asks, _AT_ONCE)))
        drift = engine.call("concepts")[f"{_NAME}/{_LAYER}"]
        if drift > ALARM:
            return (number + 1) * _AT_ONCE, drift
    return None, drift
