"""The rules of docs/profile-format.md, checked a second time and in another way than the loader does.

Reads the files with `json` and the `safetensors` library, so that a mistake of the loader is not made again here.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

_FIELDS = {
    "": "format_version name description base_model kind layers positions gate alpha norms provenance shares touched "
    "unmeant expected ported_from sha256",
    "base_model": "architecture hidden_size num_layers fingerprint",
    "gate": "scope metric max_distance limits",
    "alpha": "default min max",
    "provenance": "dataset_digest rule method seed model_id source samples versions evaluation chat_template prompt "
    "labels",
}
_OBEYED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def broken(folder: Path) -> list[str]:
    """What of the format's rules the profile in `folder` breaks, in words."""
    found = []
    try:
        text = (folder / "profile.json").read_bytes().decode("utf-8")
        manifest: dict[str, Any] = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
        data = (folder / "profile.safetensors").read_bytes()
        tensors = load(data)
    except Exception as error:
        return [f"it cannot be read ({type(error).__name__}: {error})"]
    if manifest["sha256"] != {"profile.safetensors": hashlib.sha256(data).hexdigest()}:
        found.append("its sha256 is another one")
    if _OBEYED.search(json.dumps(manifest, ensure_ascii=False)):
        found.append("a text holds a control character")
    for where, names in _FIELDS.items():
        part = manifest if not where else manifest.get(where) or {}
        if unknown := set(part) - set(names.split()):
            found.append(f"{where or 'the manifest'} has the unknown fields {sorted(unknown)}")
    return found + _manifest(manifest) + _tensors(manifest, tensors)


def _manifest(manifest: dict[str, Any]) -> list[str]:
    model, layers, kind = manifest["base_model"], manifest["layers"], manifest["kind"]
    gate = manifest.get("gate")
    alpha = {"default": 1.0, "min": 0.0, "max": 2.0, **manifest.get("alpha", {})}
    version_2 = any(
        manifest.get(name) is not None for name in ("shares", "touched", "unmeant", "expected", "ported_from")
    )
    version_2 |= bool(gate and gate.get("limits"))
    version_2 |= any((manifest.get("provenance") or {}).get(name) for name in ("chat_template", "prompt", "labels"))
    holds = {
        "format_version": _whole(manifest["format_version"]) and manifest["format_version"] in (1, 2),
        "a field of version 2 in version 1": not (version_2 and manifest["format_version"] == 1),
        "name": re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", manifest["name"]) and manifest["name"] != "none",
        "architecture": 1 <= len(model["architecture"]) <= 200 and model["architecture"].isprintable(),
        "hidden_size": _whole(model["hidden_size"]) and 1 <= model["hidden_size"] <= 2**20,
        "num_layers": _whole(model["num_layers"]) and 1 <= model["num_layers"] <= 2**16,
        "fingerprint": _fits(model.get("fingerprint"), r"(sampled|adapted)-sha256:[0-9a-f]{64}"),
        "kind": kind in ("coarse", "fine"),
        "layers": layers == sorted(set(layers)) and all(_whole(n) and 0 <= n < model["num_layers"] for n in layers),
        "norms": list(map(str, layers)) == sorted(manifest["norms"], key=int) and bool(layers),
        "gate": (gate is not None) == (kind == "fine"),
        "positions": manifest.get("positions", "answer") in ("answer", "prompt", "all", "image", "text"),
        "alpha": all(map(_number, alpha.values())) and -1000 <= alpha["min"] <= alpha["default"] <= alpha["max"] <= 1e3,
        "shares": all(0 <= n <= 1 for ns in (manifest.get("shares") or {}).values() for n in ns),
        "expected": all(0 <= n <= 1 for ns in (manifest.get("expected") or {}).values() for n in ns),
        "touched": all(0 <= n <= 1 for n in (manifest.get("touched") or {}).values()),
    }
    if gate is not None:
        far = [gate.get("max_distance"), *(n for ns in (gate.get("limits") or {}).values() for n in ns)]
        most = 2 if gate.get("metric") == "cosine" else 1e10
        holds["max_distance"] = all(n is None or (_number(n) and 0 <= n <= most) for n in far)
        holds["scope"] = gate.get("scope", "token") == "token" or manifest.get("positions", "answer") == "answer"
        holds["scope"] &= gate.get("scope", "token") in ("token", "sequence")
        holds["metric"] = gate.get("metric", "euclidean") in ("euclidean", "cosine")
    return [f"{rule} breaks its rule" for rule, ok in holds.items() if not ok]


def _tensors(manifest: dict[str, Any], tensors: dict[str, npt.NDArray[Any]]) -> list[str]:
    parts = ("vector",) if manifest["kind"] == "coarse" else ("centroids", "vectors")
    names = {f"layers.{layer}.{part}" for layer in manifest["layers"] for part in parts}
    if names != set(tensors):
        return [f"its tensors are {sorted(tensors)}"]
    found = []
    for name, array in tensors.items():
        if array.dtype != np.float32 or array.shape[-1] != manifest["base_model"]["hidden_size"]:
            found.append(f"{name} is {array.dtype}{list(array.shape)}")
        elif not (np.isfinite(array).all() and np.abs(array).max(initial=0) <= 1e6):
            found.append(f"{name} holds numbers that cannot be served")
    for layer in manifest["layers"]:
        rows = np.atleast_2d(tensors[f"layers.{layer}.{parts[-1]}"]).astype(np.float64)
        longest, said = float(np.linalg.norm(rows, axis=1).max()), manifest["norms"][str(layer)]["vector"]
        if not _number(said) or abs(longest - said) > 1.01e-4 * max(longest, abs(said)):
            found.append(f"the norm of layer {layer} is {longest} and not {said}")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key comes twice")
    return dict(pairs)


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _fits(value: object, pattern: str) -> bool:
    return value is None or (isinstance(value, str) and re.fullmatch(pattern, value) is not None)
