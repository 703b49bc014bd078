"""What a server does before its engine starts, so that all of its processes begin with the same generation."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from trimtab.vectors import Registry
from trimtab.vectors.experiments import Plan, read_plan

from ..errors import StartupError
from .desired import Desired
from .experiments.fits import misnamed
from .experiments.held import check_plan, keep_plan, unit_key
from .generation import Generation
from .keys import ADMIN_KEYS, read_keys
from .policy import Policy, parse_policy
from .policy.held import check_file
from .state import State

__all__ = ["begin", "make_log_folder", "share_keys", "share_metrics"]

_METRICS = "PROMETHEUS_MULTIPROC_DIR"


def begin(
    state: State,
    registry: Registry,
    desired: Path | None = None,
    policy: Path | None = None,
    experiments: Path | None = None,
) -> Generation:
    """Take the state folder, and publish what a server starts with.

    desired: the file that names what is to be served; None for all of `registry`. policy, experiments: files of the
    access policy and of the plan.

    Raises:
        ProfileError: the folder or the file cannot be used.
        StartupError: the policy or the plan cannot be used for these profiles, or the plan not after the one that a
            server had before in the same folder; or there is no key for its units.
    """
    before, profiles = state.begin(), list(registry.values())
    for profile in profiles:
        state.keep(profile)
    generation = Generation.first(profiles, before)
    if desired is not None:
        generation = Desired.read(desired).first(generation)
    governs = None if policy is None else check_file(policy, registry)
    generation = generation.with_policy(None if governs is None else state.keep_policy(governs))
    plan = _plan(state, registry, before, experiments, None if governs is None else parse_policy(governs))
    generation = generation.with_experiments(None if plan is None else keep_plan(state, *plan))
    state.publish(generation)
    return generation


def _plan(
    state: State, registry: Registry, before: Generation | None, file: Path | None, policy: Policy | None
) -> tuple[bytes, Plan] | None:
    found = None
    if file is not None:
        unit_key()
        held = None if before is None or before.experiments is None else read_plan(state.plan(before.experiments))
        found = check_plan(file, registry, policy, held, state)
    if policy is not None and (said := list(misnamed(policy, None if found is None else found[1]))):
        raise StartupError(f"the access policy names what is not there: {'; '.join(said)}")
    return found


def make_log_folder(folder: Path) -> None:
    """Make the folder of the exposure log, before a model is loaded.

    Raises:
        StartupError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StartupError(
            f"the folder of the exposure log {folder.name} cannot be written ({error.strerror}); give "
            "--steering-exposures a folder that the server's user can write"
        ) from error


def share_keys(file: Path | None) -> bool:
    """Hand the hashes of the admin keys to all processes, and take the keys themselves out of the environment.

    Returns:
        Whether there are any.

    Raises:
        StartupError: a bad key or file, or vLLM's development routes, which let anybody change what is served.
    """
    keys = read_keys(file)
    if keys and os.environ.get("VLLM_SERVER_DEV_MODE", "0").lower() not in ("", "0", "false"):
        raise StartupError(
            "VLLM_SERVER_DEV_MODE opens routes to anybody that can do what an admin key is for; unset it, or start "
            "without admin keys"
        )
    os.environ[ADMIN_KEYS] = str(keys)
    return bool(keys)


def share_metrics(folder: Path) -> None:
    """Let the counters of all processes add up on /metrics, in a folder that is fresh for each start.

    Before prometheus_client is imported, which chooses then how it counts. A folder that is set already is kept.
    """
    if not os.environ.get(_METRICS):
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[_METRICS] = str(folder)
