"""One architecture: what the engine serves beside what transformers computes with a hook on the same layer.

Everything in float32. Each request is asked alone, unsteered and with each profile, and then all of them in one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tests.architectures.inside import sums_of
from tests.architectures.parts import LAYERS
from tests.architectures.reference import Reference
from tests.architectures.table import Implementation, Row, build
from tests.architectures.vectors import ALPHA, make_profiles
from tests.engine.asking import Answer, Ask
from tests.engine.engine import Engine, RefusedError
from trimtab.vectors import Profile, Registry

__all__ = ["BOUND", "Finding", "compare"]

Float32 = npt.NDArray[np.float32]
Status = Literal["proven", "refused", "differs"]

BOUND = 1e-4
"""The largest difference of two log-probabilities that are called equal."""
SHOWS = 1e-2
"""The least that an addition has to change a log-probability by, for its comparison to say anything."""
_LETTERS = 200
"""How many of the last tokens may be generated: bytes. A mark for a picture would have to come with a picture."""
_CAUSAL = (
    "with a picture, equal to transformers with causal attention, which is what vLLM computes on a CPU; on a GPU the "
    "model attends to a picture both ways"
)


@dataclass
class Finding:
    """What came of one architecture. differences: the largest one of each comparison, by its name."""

    status: Status
    implementation: Implementation
    reason: str = ""
    differences: dict[str, float] = field(default_factory=dict)
    pictures: bool = False
    compiled: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def max_difference(self) -> float | None:
        return max(self.differences.values()) if self.differences else None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "max_difference": self.max_difference}


@dataclass(frozen=True)
class Case:
    """A request and the profile that steers it, if one does."""

    kind: str
    ask: Ask
    profile: Profile | None = None

    @property
    def asked(self) -> Ask:
        return self.ask if self.profile is None else self.ask.steered({"profile": self.profile.name, "alpha": ALPHA})

    @property
    def name(self) -> str:
        return f"{self.kind} {'unsteered' if self.profile is None else self.profile.name}"


def compare(row: Row, folder: Path, *, compiled: bool = False, by: Implementation | None = None) -> Finding:
    """Build, serve and compare.

    folder: an empty one, for the checkpoint, the profiles and the engine's log. by: what vLLM serves the model with;
    None leaves the choice to vLLM.

    Raises:
        AssertionError: something is not as it should be, and no status says so. RefusedError: vLLM cannot run it.
    """
    model = build(row.name, folder / "model")
    reference = Reference(model, causal=row.causal)
    asks = _asks(row, reference)
    registry = make_profiles(reference, list(asks.values()), folder / "profiles")
    settings: dict[str, Any] = {"limit_mm_per_prompt": row.limits} if row.pictures else {}
    if not row.cached:
        settings["enable_prefix_caching"] = False
    if by is not None:
        settings["model_impl"] = "vllm" if by == "native" else by
    # A graph of yesterday's code would answer for today's.
    env = {"VLLM_CACHE_ROOT": str(folder / "cache")}
    log = folder / "engine.log"
    try:
        with Engine(log, model, folder / "profiles", env=env, enforce_eager=not compiled, **settings) as engine:
            found = Finding("proven", by or "native", compiled=compiled)
            return _compared(engine, reference, _cases(asks, registry), row, found)
    except RefusedError as error:
        if error.refusal.kind != "StartupError":
            raise
        return Finding("refused", by or "native", reason=error.refusal.message)


def _asks(row: Row, reference: Reference) -> dict[str, Ask]:
    last = len(reference.reader.tokenizer)
    sampling = {"allowed_token_ids": list(range(last - _LETTERS, last))}
    usual: dict[str, Any] = {"max_tokens": 3, "ignore_eos": True, "full": True, "sampling": sampling}
    text, picture = Ask("who is there? two red balls.", **usual), Ask("what is it?", 1, **usual)
    return {**({"text": text} if row.text else {}), **({"picture": picture} if row.pictures else {})}


def _cases(asks: Mapping[str, Ask], registry: Registry) -> list[Case]:
    return [Case(kind, ask, profile) for kind, ask in asks.items() for profile in (None, *registry.values())]


def _compared(engine: Engine, reference: Reference, cases: Sequence[Case], row: Row, found: Finding) -> Finding:
    found.facts = engine.call("inside", what="facts")
    found.implementation = "transformers" if found.facts["model"].startswith("Transformers") else "native"
    _check_layers(row, reference, engine.call("inside", what="small_weights"))
    alone = engine.ask_alone([case.asked for case in cases])
    unsteered: dict[str, Float32] = {}
    for case, answer in zip(cases, alone, strict=True):
        if answer.prompt != reference.prompt(case.ask):
            raise AssertionError(f"{row.name}: vLLM and transformers read the {case.kind} as different tokens")
        expected = reference.logprobs(case.ask, answer.tokens, case.profile, ALPHA)
        found.differences[case.name] = _distance(answer.logprobs, expected)
        # Of the first token, which follows the same prompt in every case.
        if (
            np.abs(expected[0] - unsteered.setdefault(case.kind, expected[0])).max() < SHOWS
            and case.profile is not None
        ):
            raise AssertionError(f"{row.name}: {case.name} changes too little to be compared")
    engine.forget()
    for case, answer, beside in zip(cases, engine.ask([case.asked for case in cases]), alone, strict=True):
        found.differences[f"{case.name}, batched"] = _distance(answer.logprobs, beside.logprobs)
    found.pictures = row.pictures
    off = [case.kind for case in cases if case.profile is None and found.differences[case.name] > BOUND]
    if off:
        found.status, found.reason = "differs", _apart(engine, cases, alone, found, off)
    elif (found.max_difference or 0) > BOUND:
        worst = max(found.differences, key=lambda name: found.differences[name])
        raise AssertionError(f"{row.name}: {worst} is off by {found.differences[worst]:.1e}")
    elif row.causal:
        found.reason = _CAUSAL
    return found


def _check_layers(row: Row, reference: Reference, served: Sequence[Sequence[float]]) -> None:
    """The blocks that offline reads are the layers that the plugin arms, number by number: they share norms."""
    read = [sums_of(block) for block in reference.reader.blocks]
    alike = [[number for number, sums in enumerate(served) if _share(block, sums)] for block in read]
    if len(served) != LAYERS or alike != [[number] for number in range(LAYERS)]:
        raise AssertionError(f"{row.name}: blocks of transformers and layers of vLLM are not the same: {alike}")


def _share(some: Sequence[float], others: Sequence[float]) -> bool:
    return bool(np.isclose(np.array(some)[:, None], np.array(others), rtol=0, atol=1e-9).any())


def _distance(one: Sequence[Sequence[float]], other: Any) -> float:
    a, b = np.asarray(one), np.asarray(other)
    size = min(a.shape[1], b.shape[1])  # vLLM leaves out what a vocabulary is padded with
    return float(np.abs(a[:, :size] - b[:, :size]).max())


def _apart(engine: Engine, cases: Sequence[Case], alone: Sequence[Answer], found: Finding, off: Sequence[str]) -> str:
    """Hold the addition against vLLM's own model with a hook, and say what came out."""
    by_hooks = []
    for case, answer in zip(cases, alone, strict=True):
        if case.profile is None or case.profile.manifest.kind != "coarse" or case.kind not in off:
            continue
        for layer, vector in _added(case.profile):
            engine.call("inside", what="hook", layer=layer, vector=vector)
            (hooked,) = engine.ask_alone([case.ask])
            by_hooks.append(_distance(answer.logprobs, hooked.logprobs))
            engine.call("inside", what="hook", layer=layer, vector=None)
    apart = max(found.differences[case.name] for case in cases if case.profile is None)
    return (
        f"vLLM itself differs from transformers by {apart:.1e}, unsteered ({' and '.join(off)}); a vector added by "
        f"trimtab and by a hook in vLLM differ by {max(by_hooks):.1e}"
    )


def _added(profile: Profile) -> Iterator[tuple[int, list[float]]]:
    for layer, tensors in profile.tensors.items():
        yield layer, [ALPHA * float(entry) for entry in tensors.named["vector"]]
