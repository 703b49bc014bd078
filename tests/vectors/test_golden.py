"""Files that were released: they load for ever and save to the bytes that they are.

When one of these tests fails, the code is wrong and not the file: add a format version beside those that are there.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from trimtab.vectors import ConceptDictionary, Registry, load_profile, save_profile
from trimtab.vectors.manifest import adds_nothing, template_digest

GOLDEN = Path(__file__).parent / "golden"


def values(numbers: list[float]) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


SEVENTHS = [number / 7 for number in range(12)]
DIGESTS = {
    "golden-coarse": "0b5453a7538ec1e227a28661214df76f6774996bc69b25d11bbbb0b898f487b6",
    "golden-fine": "198780ad20910fab37654fdc3b569a57c40a48b9d200913b62ff84adba27b71d",
}
CONTENT = {
    "golden-coarse": {
        (2, "vector"): values([0.5, -1.25, 3.0, 1e-7]),
        (5, "vector"): values([-0.0, 1 / 3, -65504.0, 0.1]),
    },
    "golden-fine": {
        (3, "centroids"): values(SEVENTHS),
        (3, "vectors"): values([0, 0, 0, 0, 1, -2, 2, 0, 0.1, 0.2, 0.3, 0.4]),
        (4, "centroids"): values([1, 0, 0, 0, 0, 1, 0, 0]),
        (4, "vectors"): values([0, 0, 0, 0, 0, 0, 0, -1.5]),
    },
}


@pytest.mark.parametrize("name", DIGESTS)
def test_a_profile_of_version_1_loads_with_its_content_and_digest(name: str) -> None:
    profile = load_profile(GOLDEN / "v1" / name)
    assert profile.digest == DIGESTS[name]
    assert CONTENT[name] == {
        (layer, part): array.tobytes()
        for layer, tensor in profile.tensors.items()
        for part, array in tensor.named.items()
    }


@pytest.mark.parametrize("name", DIGESTS)
def test_a_profile_of_version_1_saves_to_the_bytes_that_it_was(name: str, tmp_path: Path) -> None:
    save_profile(load_profile(GOLDEN / "v1" / name), tmp_path / name)
    for file in ("profile.json", "profile.safetensors"):
        assert (tmp_path / name / file).read_bytes() == (GOLDEN / "v1" / name / file).read_bytes()


def test_what_a_manifest_of_version_1_says_is_understood() -> None:
    registry = Registry.open(GOLDEN / "v1")
    coarse, fine = registry["golden-coarse"].manifest, registry["golden-fine"].manifest
    assert (coarse.positions, coarse.alpha.default, coarse.alpha.min, coarse.alpha.max) == ("all", 0.8, -1.0, 2.5)
    assert (coarse.gate, coarse.norms[5].hidden, coarse.provenance.seed) == (None, 40.0, 7)
    assert coarse.provenance.evaluation["note"] == "α = 1, „golden“"
    assert fine.gate is not None
    assert (fine.gate.scope, fine.gate.metric, fine.gate.max_distance) == ("sequence", "cosine", 0.75)
    assert (fine.positions, fine.base_model.fingerprint, fine.norms[4].hidden) == ("answer", None, None)
    assert registry.armed() == {2: 1, 3: 3, 4: 2, 5: 1}


DIGESTS_2 = {
    "golden-full": "61092ea3fd3b97d453c6008ccc078d5363a513e462749cd1553e333046c49ef6",
    "golden-watch": "4a59a3bb9813427b36cc749b085d5e47bd9f10cea8572663de0ac4bdd3c054e9",
    "golden-minimal": "5e9776ecf5db6c5180485e7d3ee65200b852e23c85eccbe5a177bc08e7e3ae69",
}


@pytest.mark.parametrize("name", DIGESTS_2)
def test_a_profile_of_version_2_loads_and_saves_to_the_bytes_that_it_was(name: str, tmp_path: Path) -> None:
    profile = load_profile(GOLDEN / "v2" / name)
    assert (profile.digest, profile.manifest.format_version) == (DIGESTS_2[name], 2)
    save_profile(profile, tmp_path / name)
    for file in ("profile.json", "profile.safetensors"):
        assert (tmp_path / name / file).read_bytes() == (GOLDEN / "v2" / name / file).read_bytes()


def test_what_a_manifest_of_version_2_says_is_understood() -> None:
    manifest = load_profile(GOLDEN / "v2" / "golden-full").manifest
    assert manifest.gate is not None
    assert (manifest.gate.max_distance, manifest.gate.limits) == (2.5, {3: (1.5, None, 1e10)})
    assert manifest.shares == {3: (0.5, 0.25, 0.125), 4: (0.75, 0.25)}
    assert (manifest.touched, manifest.unmeant) == ({3: 0.0625, 4: 0.5}, {3: 0.03125})
    assert manifest.provenance.chat_template == template_digest("{{ messages }}")
    assert (manifest.provenance.prompt, manifest.provenance.labels) == ("{question}\nOne word.", "truth")
    assert [model.fingerprint for model in manifest.ported_from or ()] == ["sampled-sha256:" + "01" * 32]
    watching = load_profile(GOLDEN / "v2" / "golden-watch").manifest
    assert (watching.expected, adds_nothing(watching)) == ({3: (0.5, 0.25, 0.0), 4: (0.125, 0.875)}, True)
    assert not adds_nothing(manifest)
    assert load_profile(GOLDEN / "v2" / "golden-minimal").manifest.fields_of_version_2 == ()


def test_a_concept_dictionary_of_version_1_loads_and_saves_to_the_bytes_that_it_was(tmp_path: Path) -> None:
    dictionary = ConceptDictionary.load(GOLDEN / "v1-concepts")
    assert dictionary.centroids.tobytes() == values(SEVENTHS)
    assert (dictionary.layer, dictionary.labels, dictionary.method) == (3, ("man", "woman", "it's"), "class-means")
    assert (dictionary.counts.tolist(), dictionary.purity.tolist()) == ([5, 7, 0], [1.0, 0.5, 0.0])
    dictionary.save(tmp_path / "c")
    for file in ("concepts.json", "concepts.safetensors"):
        assert (tmp_path / "c" / file).read_bytes() == (GOLDEN / "v1-concepts" / file).read_bytes()
