"""A server without an engine: its folder of profiles, its state folder, and workers with real tables."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import torch
from torch import nn

from tests.plugin.conftest import SIZE
from trimtab.plugin.config import Live, SteeringConfig, server_args
from trimtab.plugin.control.begin import begin
from trimtab.plugin.control.rollout import Rollout
from trimtab.plugin.control.served import Served, served
from trimtab.plugin.control.sources import Mirror
from trimtab.plugin.control.state import State
from trimtab.plugin.model.tables import SteeringTables
from trimtab.plugin.requests.kv import WIRE_KEY
from trimtab.plugin.runners import staging
from trimtab.vectors import ModelIdentity, Profile, Registry, SteeringVector, save_profile

T = TypeVar("T")


def run(change: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(change)


def version(model: ModelIdentity, number: float, name: str = "polite", **more: Any) -> Profile:
    """A coarse profile at layers 0 and 2, all of whose numbers are one."""
    vectors = [SteeringVector(layer, [number] * SIZE) for layer in (0, 2)]
    return Profile.coarse(name, vectors, model=model, **more)


class Rolling:
    """A server that can be changed, with two workers. `requests` are those that its scheduler has."""

    def __init__(
        self,
        folder: Path,
        model_folder: Path,
        state: Path,
        desired: Path | None = None,
        mirror: Mirror | None = None,
        experiments: Path | None = None,
        **more: Any,
    ) -> None:
        live = Live(state, desired=desired, experiments=experiments)
        arguments, registry = server_args(folder, model=model_folder, live=live, **{"rows": None, **more})
        self.profiles, self.registry = folder, registry
        self.vllm_config: Any = SimpleNamespace(
            additional_config=arguments["additional_config"],
            model_config=SimpleNamespace(
                model=str(model_folder), revision=None, dtype=torch.float32, enable_sleep_mode=False
            ),
            parallel_config=SimpleNamespace(rank=0, tensor_parallel_size=1),
            load_config=SimpleNamespace(download_dir=None),
        )
        config = SteeringConfig.of(cast(Any, self.vllm_config))
        assert config is not None
        self.config = config
        self.state = State(state)
        begin(self.state, registry, desired, more.get("policy"), experiments)
        served(self.vllm_config)  # as each process does when it starts
        self.workers = [self._worker(registry) for _ in range(2)]
        self.requests: dict[str, Any] = {}
        self.rollout = Rollout(self.state, folder, ModelIdentity.of(model_folder), self._stage, mirror)

    def _worker(self, registry: Registry) -> Any:
        model = nn.Module()
        tables = SteeringTables(self.config.rows, self.config.slots, SIZE, tokens=8, requests=4)
        model.trimtab = tables
        for profile in registry.values():
            tables.load(profile)
        runner = SimpleNamespace(get_model=lambda: model, vllm_config=self.vllm_config)
        return SimpleNamespace(**vars(runner), model_runner=runner, tables=tables)

    async def _stage(self, name: str, content: str, keep: list[str]) -> None:
        needed = staging.needed(self.requests.values())
        for worker in self.workers:
            staging.trimtab_stage(worker, name, content, keep, needed)

    def admit(self, request: str, digest: str) -> None:
        """Let the scheduler have a request that is steered by a version."""
        params = SimpleNamespace(extra_args={WIRE_KEY: [{"digest": digest}]})
        self.requests[request] = SimpleNamespace(sampling_params=params)

    def put(self, profile: Profile) -> Profile:
        """A version in the folder of profiles, in place of the one before."""
        save_profile(profile, self.profiles / profile.name, overwrite=True)
        return profile

    def now(self) -> Served:
        found = served(self.vllm_config)
        assert found is not None
        return found

    def held(self) -> list[set[str]]:
        """The digests that each worker holds."""
        return [set(worker.tables.slots) for worker in self.workers]

    def audited(self) -> list[str]:
        return (self.state.folder / "audit.jsonl").read_text().splitlines()
