"""What every process of an engine must agree on: which profiles, which layers are armed, how many rows there are.

It travels in vLLM's `additional_config` (config/vllm.py), which reaches every process. The registry's digest is in it,
so that a folder that changes while an engine starts stops the start instead of serving two versions.

`additional_config` is also part of the key of vLLM's compile cache, which does not know plugins by itself: a stale
graph would lack the op. Only what the compiled graph depends on may be in that key, see `SteeringConfig.compiled`.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.vectors import ModelIdentity, Registry
from trimtab.vectors.layers import Layer

from .asking import STEERING_KEY, ask
from .compat.versions import OP_VERSION, check_vllm, installed_vllm
from .errors import StartupError

if TYPE_CHECKING:
    from vllm.config import VllmConfig

__all__ = [
    "PLUGIN_NAME",
    "Live",
    "SteeringConfig",
    "engine_args",
    "file_digest",
    "identity_of",
    "model_folder",
    "open_registry",
    "server_args",
]

PLUGIN_NAME = "trimtab"
_LEAST_REST = 8


@dataclass(frozen=True)
class SteeringConfig:
    """The engine-wide facts of steering, fixed at start."""

    profiles: str
    """Folder of profiles, absolute."""
    digest: str
    """Digest over everything in it that is read."""
    rows: dict[int, int]
    """Armed layer → rows of its table (a coarse profile takes 1, a fine one 2 K, the self-check 1)."""
    slots: int
    """How many profiles fit, and two more: slot 0 is unsteered, the last belongs to the self-check."""
    op_version: int = OP_VERSION
    state: str = ""
    """State folder of a server whose profiles can change, absolute; empty where they cannot."""
    refresh: float = 0.0
    """Seconds between two rescans; 0 for none."""
    desired: str = ""
    """File that names what is to be served, absolute; empty where the folder of profiles does."""
    source: str = ""
    """URL that `profiles` is a copy of; empty where it is none."""
    policy: str = ""
    """File of the access policy, absolute; empty where there is none."""
    experiments: str = ""
    """File of the plan of experiments, absolute; empty where there is none."""
    exposures: str = ""
    """Folder of the exposure log, absolute."""
    policy_digest: str = ""
    """sha256 (hex) of that file when the engine was configured."""

    def to_additional_config(self) -> dict[str, Any]:
        return {STEERING_KEY: {**asdict(self), "rows": {str(layer): rows for layer, rows in self.rows.items()}}}

    def compiled(self) -> dict[str, Any]:
        """What the compiled graph depends on: the armed layers, their rows, the slots and the version of the op."""
        whole: dict[str, Any] = self.to_additional_config()[STEERING_KEY]
        return {name: whole[name] for name in ("rows", "slots", "op_version")}

    @classmethod
    def of(cls, vllm_config: VllmConfig) -> SteeringConfig | None:
        """The steering part of an engine's configuration; None for an engine that was started without profiles."""
        additional = vllm_config.additional_config
        found = additional.get(STEERING_KEY) if isinstance(additional, Mapping) else None
        return None if found is None else _read(found)


_last_read: tuple[Any, SteeringConfig | None] = (None, None)


def _read(found: Mapping[str, Any]) -> SteeringConfig:
    # Asked several times per request, nearly always of the same object.
    global _last_read
    last, config = _last_read
    if config is not None and last is found:
        return config
    config = SteeringConfig(**{**found, "rows": {int(layer): int(rows) for layer, rows in found["rows"].items()}})
    _last_read = (found, config)
    return config


def engine_args(
    profiles: str | Path,
    *,
    model: str | Path | None = None,
    layers: Iterable[int] = (),
    rows: int | None = 0,
    policy: str | Path | None = None,
    additional_config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Keyword arguments for `vllm.LLM(...)` or `AsyncEngineArgs(...)` that arm an engine with a folder of profiles.

    Sets VLLM_TRIMTAB=1 in this process and all that it starts, without which an installed trimtab does nothing. Where
    the arguments are handed to processes that this one does not start, set it there.

    Args:
        profiles: folder whose sub-folders are profiles.
        model: folder of the model, to check the profiles against it now; the engine checks again when it starts.
        layers: decoder layers to arm beside those that the profiles use.
        rows: table rows to keep free at every armed layer, and as many free slots, for profiles that come later. None
            takes as many as the profiles need where they need most, so that each can have a second version, and at
            least 8.
        policy: file of an access policy (docs/policy.md), for a program whose requests are those of `local`.
        additional_config: the engine's own `additional_config`, kept beside ours.

    Raises:
        StartupError: vLLM is missing or outside the supported range, `VLLM_PLUGINS` keeps trimtab out, or the model
            lacks a layer or cannot be armed.
        ProfileError: the folder, or a profile in it, is unusable.
    """
    arguments, _ = server_args(
        profiles, model=model, layers=layers, rows=rows, policy=policy, additional_config=additional_config
    )
    return arguments


@dataclass(frozen=True)
class Live:
    """What lets the profiles of a server change while it runs. Its fields are those of `SteeringConfig`."""

    state: Path
    refresh: float = 0.0
    desired: Path | None = None
    source: str = ""
    experiments: Path | None = None
    exposures: Path | None = None


def server_args(
    profiles: str | Path,
    *,
    model: str | Path | None = None,
    layers: Iterable[int] = (),
    rows: int | None = 0,
    live: Live | None = None,
    policy: str | Path | None = None,
    additional_config: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], Registry]:
    """`engine_args`, also for a server whose profiles can change, and the profiles that it starts with."""
    check_vllm(installed_vllm())
    check_plugin_allowed()
    if rows is not None and rows < 0:
        raise StartupError(f"rows must be 0 or more, not {rows}")
    folder = Path(profiles).resolve()
    identity = None if model is None else ModelIdentity.of(Path(model))
    registry = Registry.open(folder, identity)
    armed = sorted({*registry.armed(), *layers})
    if identity is not None:
        check_layers(armed, identity.num_layers)
    used = {layer: _rows_used(registry, layer) for layer in armed}
    rest = max(_LEAST_REST, len(registry), *used.values()) if rows is None else rows
    config = SteeringConfig(
        profiles=str(folder),
        digest=registry_digest(registry),
        rows={layer: 1 + used[layer] + rest for layer in armed},
        slots=2 + len(registry) + rest,
        state="" if live is None else str(live.state.resolve()),
        refresh=0.0 if live is None else live.refresh,
        desired="" if live is None or live.desired is None else str(live.desired.absolute()),
        source="" if live is None else live.source,
        experiments="" if live is None or live.experiments is None else str(live.experiments.absolute()),
        exposures="" if live is None or live.exposures is None else str(live.exposures.absolute()),
        policy="" if policy is None else str(Path(policy).absolute()),
        policy_digest="" if policy is None else file_digest(Path(policy)),
    )
    ask()
    return {"additional_config": {**(additional_config or {}), **config.to_additional_config()}}, registry


def file_digest(path: Path) -> str:
    """sha256 (hex) of the file of an access policy or of a plan of experiments.

    Raises:
        StartupError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise StartupError(
            f"the access policy or the plan of experiments, {path.name}, cannot be read ({error.strerror}); name its "
            "file with --steering-policy or --steering-experiments"
        ) from error


def open_registry(config: SteeringConfig, vllm_config: VllmConfig) -> Registry:
    """The registry of a running engine, checked against the model and against what the other processes loaded.

    Raises:
        ProfileError: a profile is unusable or made for another model.
        StartupError: the folder changed since the engine's configuration was made.
    """
    return _open(config.profiles, config.digest, *_model_of(vllm_config))


def identity_of(vllm_config: VllmConfig) -> ModelIdentity:
    """The model that an engine serves, which every profile must be made for. Read once a process."""
    return _identity(*_model_of(vllm_config))


def _model_of(vllm_config: VllmConfig) -> tuple[str, str | None, str | None]:
    model = vllm_config.model_config
    return model.model, model.revision, vllm_config.load_config.download_dir


@functools.cache
def _identity(model: str, revision: str | None, download_dir: str | None) -> ModelIdentity:
    return ModelIdentity.of(model_folder(model, revision, download_dir))


# Once a process: what moves on the disk of a running server changes nothing, and an in-process worker shares the copy.
@functools.cache
def _open(profiles: str, digest: str, model: str, revision: str | None, download_dir: str | None) -> Registry:
    registry = Registry.open(Path(profiles), _identity(model, revision, download_dir))
    if registry_digest(registry) != digest:
        raise StartupError("the folder of steering profiles changed while the engine was starting; start it again")
    return registry


def check_layers(armed: Iterable[int], num_layers: int) -> None:
    """Refuse to arm a layer that the model lacks."""
    missing = [layer for layer in armed if not 0 <= layer < num_layers]
    if missing:
        raise StartupError(
            f"layer {missing[0]} cannot be armed: the model has layers 0 to {num_layers - 1}; see --steering-layers"
        )


def registry_digest(registry: Registry) -> str:
    """Digest over all that was read: equal for two processes exactly when they serve the same in the same ranges."""
    return registry.digest


def model_folder(model: str, revision: str | None = None, download_dir: str | None = None) -> Path:
    """Where the files lie that vLLM loads a model from. Downloads nothing.

    Leans on vllm/model_executor/model_loader/default_loader.py (0.29 to 0.32): a folder is taken as it is; then
    ModelScope's cache, where VLLM_USE_MODELSCOPE is set; then the Hub's cache, which --download-dir or HF_HOME move.

    Args:
        model, revision, download_dir: as vLLM's configuration has them.

    Raises:
        StartupError: the safetensors files are not on this machine.
    """
    if Path(model).is_dir():
        return Path(model)
    from vllm import envs

    folder = _in_modelscope(model, revision) if envs.VLLM_USE_MODELSCOPE else _in_hub(model, revision, download_dir)
    if folder is None or not any(folder.glob("*.safetensors")):
        raise StartupError(
            f"the safetensors weights of {model!r} are not on this machine, and profiles are checked against them; "
            "download the model first (hf download NAME --local-dir FOLDER) and serve its folder"
        )
    return folder


def _in_hub(model: str, revision: str | None, download_dir: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, revision=revision, cache_dir=download_dir, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _in_modelscope(model: str, revision: str | None) -> Path | None:
    # vLLM hands it no --download-dir.
    from modelscope.hub.snapshot_download import snapshot_download

    try:
        return Path(snapshot_download(model_id=model, revision=revision, local_files_only=True))
    except ValueError:  # what it raises for files that are not in its cache
        return None


def rows_of(tensors: Layer) -> int:
    """How many rows of a table a profile takes at a layer: 1 coarse, 2 K fine (its centroids, then its vectors)."""
    return sum(1 if array.ndim == 1 else len(array) for array in tensors.named.values())


def _rows_used(registry: Registry, layer: int) -> int:
    return sum(rows_of(profile.tensors[layer]) for profile in registry.values() if layer in profile.layers)


def check_plugin_allowed() -> None:
    allowed = os.environ.get("VLLM_PLUGINS")
    # As vLLM compares: a space beside a name makes it another name.
    if allowed is not None and PLUGIN_NAME not in allowed.split(","):
        raise StartupError(
            f"VLLM_PLUGINS={allowed!r} is an allow-list without {PLUGIN_NAME!r}, so vLLM would serve unsteered; "
            f"add {PLUGIN_NAME!r} to it or unset it"
        )
