"""Every cell of route × key × profile × composition of an access policy, against a table of who may do what.

cells: requests sent. served, refused: what came of them. violations: those that were served otherwise than the table
says, refused though it lets them, or refused for another reason: none.
"""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from tests.engine.server import MODEL_NAME
from tests.reliability.answers import said
from tests.reliability.served import CONSUMER, KEYS, Shared, asking, key_of, policy, shared
from tests.reliability.words import HELD, WORDS
from trimtab.plugin.http.routes import STEERED

# Who asks: the headers beside the key, the key, and the subject that this is.
WHO: dict[str, tuple[str | None, dict[str, str], str | None]] = {
    "nobody": (None, {}, None),
    "an unknown key": ("of nobody", {}, None),
    "team-a": (KEYS["team-a"], {}, "team-a"),
    "team-b": (KEYS["team-b"], {}, "team-b"),
    "a gateway": (KEYS["gateway"], {}, "gateway"),
    "a gateway for team-a": (KEYS["gateway"], {CONSUMER: "team-a"}, "team-a"),
    "a gateway for a stranger": (KEYS["gateway"], {CONSUMER: "stranger"}, "stranger"),
    "team-b that says it is team-a": (KEYS["team-b"], {CONSUMER: "team-a"}, "team-b"),
    "nobody who says it is team-a": (None, {CONSUMER: "team-a"}, None),
}
# The strengths that each subject may ask for, by profile, as the policy of `served` has it.
MAY: dict[str | None, dict[str, tuple[float, float]]] = {
    "team-a": {"weak-a": (-0.5, 0.5), "weak-b": (-0.5, 0.5)},
    "team-b": {"weak-b": (-1.0, 2.0)},
}
OPT_OUT = {"team-a"}
DEFAULT = ("weak-a", 0.25)

Wish = tuple[tuple[str, float], ...]
_WISHES: dict[str, Wish] = {
    "weak-a": (("weak-a", 0.5),),
    "weak-a, too strong": (("weak-a", 0.75),),
    "weak-b": (("weak-b", -0.5),),
    "weak-b, strong": (("weak-b", 2.0),),
    "a word": (("say-arm", 1.0),),
    "the enforced one": ((HELD, 1.0),),
    "the enforced one, weaker": ((HELD, 0.5),),
    "the enforced one, not at all": ((HELD, 0.0),),
}
_BESIDE: dict[str, Wish] = {
    "alone": (),
    "beside weak-b": (("weak-b", 0.25),),
    "beside a word": (("say-high", 1.0),),
    "beside the enforced one": ((HELD, 1.0),),
}


def run(work: Path, share: float) -> dict[str, Any]:
    server = shared(work)
    server.govern(policy(default={"profile": DEFAULT[0], "alpha": DEFAULT[1]}))
    try:
        return _run(server, share)
    finally:
        server.govern(policy())


def _run(server: Shared, share: float) -> dict[str, Any]:
    digests = {name: profile.digest for name, profile in server.registry.items()}
    cells = list(itertools.product(sorted(STEERED), WHO, _requests().items()))[:: max(1, round(1 / share))]
    tally, wrong = Counter[str](), []
    for path, who, (name, (wish, fields)) in tqdm(cells, "access", mininterval=5):
        key, headers, subject = WHO[who]
        sent = headers if key is None else {**headers, **key_of(path, key)}
        reply = server.http.post(path, json=asking(path, **fields), headers=sent)
        tally["cells"] += 1
        expected = allowed(subject, wish)
        tally["refused" if expected is None else "served"] += 1
        if problem := _problem(path, reply, expected, digests):
            wrong.append(f"{path}, {who}, {name}: {problem}")
    return {**tally, "violations": len(wrong), "wrong": wrong[:20]}


def allowed(subject: str | None, wish: Wish | None) -> Wish | None:
    """What a subject gets that asks for `wish`; None where it is refused. wish: None says nothing, () "none"."""
    held = ((HELD, 1.0),)
    if wish is None:
        return (DEFAULT, *held)
    if not wish:
        return held if subject in OPT_OUT else None
    for name, alpha in wish:
        if name == HELD:
            if alpha != 1.0:
                return None
            continue
        least, most = MAY.get(subject, {}).get(name, (1.0, -1.0))
        if not least <= alpha <= most:
            return None
    return (*(part for part in wish if part[0] != HELD), *held)


def _requests() -> dict[str, tuple[Wish | None, dict[str, Any]]]:
    """By name: what is asked for, and the fields that ask for it."""
    found: dict[str, tuple[Wish | None, dict[str, Any]]] = {
        "nothing": (None, {}),
        "null": (None, {"steering": None}),
        "none": ((), {"steering": "none"}),
    }
    for (what, wish), (beside, more) in itertools.product(_WISHES.items(), _BESIDE.items()):
        whole = (*wish, *more)
        if len({name for name, _ in whole}) == len(whole):
            parts = [{"profile": name, "alpha": alpha} for name, alpha in whole]
            found[f"{what}, {beside}"] = whole, {"steering": parts if len(parts) > 1 else parts[0]}
    for what, wish in _WISHES.items():
        ((name, alpha),) = wish
        found[f"{what}, in the model's name"] = wish, {"model": f"{MODEL_NAME}:{name}@{alpha}"}
    return found


def _problem(path: str, reply: httpx.Response, expected: Wish | None, digests: dict[str, str]) -> str | None:
    if expected is None:
        steered = [name for name in reply.headers if name.startswith("x-steering")]
        return None if reply.status_code == 403 and not steered else f"{reply.status_code} {reply.text[:200]}"
    if reply.status_code != 200:
        return f"{reply.status_code} {reply.text[:200]}"
    told = said(path, reply)
    whole = [(name, alpha, digests[name]) for name, alpha in expected]
    words = {word for text in told.texts for word in text.split()}
    if not told.served == told.headers == whole or words != {WORDS[HELD]}:
        return f"said {words}, told {told.served}, and is to get {whole}"
    return None
