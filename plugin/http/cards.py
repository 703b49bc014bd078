"""What a client is told of a profile: a card of its own, and one among the models.

Leans on vllm/entrypoints/openai/models/serving.py: `OpenAIServingModels.show_available_models`, with `engine_client`
and `base_model_paths` (0.29 to 0.32).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from trimtab.vectors import Profile
from trimtab.vectors.dose import largest_dose, said
from trimtab.vectors.experiments import Experiment

from ..compat.wrapping import wrap
from ..requests.admission import registry_of
from ..requests.kv import changes_no_kv

__all__ = ["card", "experiment_card", "install", "model_card"]


def card(profile: Profile) -> dict[str, Any]:
    """One profile of `GET /v1/steering/profiles`, as JSON.

    dose: of the default strength, see `trimtab.vectors.dose`. touched, unmeant: see `ProfileManifest`; null where it is
    not known. kv: "shared" where it shares cached blocks with all. rule, prompt: which states it was made of and what
    the model was asked for them; null where its manifest does not say, as that of an import.
    """
    manifest = profile.manifest
    rule = manifest.provenance.rule
    return {
        "id": profile.name,
        "object": "steering.profile",
        "description": manifest.description,
        "kind": manifest.kind,
        "layers": list(manifest.layers),
        "positions": manifest.positions,
        "alpha": manifest.alpha.model_dump(),
        "kv": "shared" if changes_no_kv(profile) else "keyed",
        "norms": {str(layer): norms.model_dump() for layer, norms in manifest.norms.items()},
        "dose": said(largest_dose(profile)),
        "touched": _by_layer(manifest.touched),
        "unmeant": _by_layer(manifest.unmeant),
        "digest": profile.digest,
        "rule": rule,
        "prompt": None if rule is None else manifest.provenance.prompt or "{question}",
    }


def experiment_card(name: str, one: Experiment) -> dict[str, Any]:
    """One experiment of `GET /v1/steering/experiments`, as JSON."""
    return {
        "id": name,
        "object": "steering.experiment",
        "status": one.status,
        "unit": list(one.unit),
        "coverage": one.coverage,
        "arms": list(one.arms),
    }


def install() -> None:
    """Let `/v1/models` list every profile beside the model that it is served on. Safe to call again."""
    from vllm.entrypoints.openai.models.serving import OpenAIServingModels

    wrap(OpenAIServingModels, "show_available_models", _models)


async def _models(show: Callable[..., Awaitable[Any]], serving: Any) -> Any:
    from vllm.entrypoints.serve.engine.protocol import ModelCard

    models = await show(serving)
    base = serving.base_model_paths[0].name
    profiles: Mapping[str, Profile] = registry_of(serving.engine_client.vllm_config) or {}
    models.data.extend(ModelCard(**model_card(profile, base)) for profile in profiles.values())
    return models


def model_card(profile: Profile, base: str) -> dict[str, Any]:
    """A profile as a model of `/v1/models`: what `"model": "base:profile"` gives. base: the name of the model."""
    return {
        "id": f"{base}:{profile.name}",
        "root": base,
        "parent": base,
        "steering": {
            "profile": profile.name,
            "alpha": profile.manifest.alpha.default,
            "digest": profile.digest,
        },
    }


def _by_layer(shares: Mapping[int, float] | None) -> dict[str, float] | None:
    return None if shares is None else {str(layer): share for layer, share in shares.items()}
