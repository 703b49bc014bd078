"""What a client is told of a profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.vectors import Profile
from trimtab.vectors.dose import largest_dose, said

from ..requests.kv import acts_after_last_block_only

__all__ = ["card"]


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
        "kv": "shared" if acts_after_last_block_only(profile) else "keyed",
        "norms": {str(layer): norms.model_dump() for layer, norms in manifest.norms.items()},
        "dose": said(largest_dose(profile)),
        "touched": _by_layer(manifest.touched),
        "unmeant": _by_layer(manifest.unmeant),
        "digest": profile.digest,
        "rule": rule,
        "prompt": None if rule is None else manifest.provenance.prompt or "{question}",
    }


def _by_layer(shares: Mapping[int, float] | None) -> dict[str, float] | None:
    return None if shares is None else {str(layer): share for layer, share in shares.items()}
