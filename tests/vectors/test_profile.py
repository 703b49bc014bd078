"""A profile holds together: tensors, manifest, digest."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest

from trimtab.vectors import AlphaRange, Gate, ModelIdentity, Profile, SteeringVector
from trimtab.vectors.errors import FormatError, IntegrityError, VectorError
from trimtab.vectors.profile import CoarseLayer, FineLayer, Provenance


def test_the_constructors_fill_in_what_can_be_computed(coarse: Profile, fine: Profile) -> None:
    assert coarse.layers == (0, 2)
    assert (coarse.last_layer, coarse.largest_k, coarse.manifest.gate) == (2, 1, None)
    assert coarse.manifest.norms[0].vector == 5.0
    assert coarse.manifest.norms[0].dose(2.0) == 1.0
    assert (fine.last_layer, fine.largest_k) == (1, 3)
    assert fine.manifest.norms[1].vector == 3.0  # the longest row
    assert fine.manifest.norms[1].dose(1.0) is None
    assert Profile.fine("p", {0: (np.ones((1, 4)), np.ones((1, 4)))}, model=fine.manifest.base_model).manifest.gate


def test_no_array_of_a_profile_can_be_written_to(coarse: Profile, fine: Profile) -> None:
    for profile in (coarse, fine):
        for tensor in profile.tensors.values():
            for array in tensor.named.values():
                assert array.dtype == np.float32
                with pytest.raises(ValueError, match="read-only"):
                    array[...] = 0
    with pytest.raises(TypeError):
        coarse.tensors[0] = coarse.tensors[2]  # type: ignore[index]


def test_the_digest_is_what_its_definition_says(model: ModelIdentity) -> None:
    profile = Profile.coarse("p", [SteeringVector(2, np.array([1, 2, 3, 4]))], model=model)
    head = b'{"gate": null, "kind": "coarse", "positions": "answer", "tensors": [["layers.2.vector", [4]]]}'
    content = b"trimtab profile 1\n" + head + b"\n" + struct.pack("<4f", 1, 2, 3, 4)
    assert profile.digest == hashlib.sha256(content).hexdigest()


def test_the_digest_ignores_what_does_not_change_the_served_bits(fine: Profile) -> None:
    layers = {1: (fine.tensors[1].named["centroids"], fine.tensors[1].named["vectors"])}
    renamed = Profile.fine(
        "another",
        layers,
        model=fine.manifest.base_model.model_copy(update={"fingerprint": None}),
        description="other words",
        gate=fine.manifest.gate,
        alpha=AlphaRange(max=9),
        hidden_norms={1: 3.0},
        provenance=Provenance(seed=1),
    )
    assert renamed.digest == fine.digest


def test_the_digest_changes_with_all_that_changes_the_served_bits(fine: Profile, model: ModelIdentity) -> None:
    centroids, vectors = fine.tensors[1].named["centroids"], fine.tensors[1].named["vectors"]
    nudged = vectors.copy()
    nudged[0, 0] = np.nextafter(np.float32(0), np.float32(1))
    variants = [
        fine,
        Profile.fine("p", {1: (centroids, vectors)}, model=model),
        Profile.fine("p", {1: (centroids, vectors)}, model=model, gate=Gate(scope="sequence")),
        Profile.fine("p", {1: (centroids, vectors)}, model=model, gate=Gate(metric="cosine")),
        Profile.fine("p", {1: (centroids, vectors)}, model=model, positions="all"),
        Profile.fine("p", {2: (centroids, vectors)}, model=model),
        Profile.fine("p", {1: (vectors, centroids)}, model=model),
        Profile.fine("p", {1: (centroids, nudged)}, model=model),
        Profile.fine("p", {1: (centroids[:2], vectors[:2])}, model=model),
        Profile.coarse("p", [SteeringVector(1, vectors[1])], model=model),
        Profile.coarse("p", [SteeringVector(1, vectors[1])], model=model, positions="prompt"),
    ]
    assert len({variant.digest for variant in variants}) == len(variants)


def test_the_content_digest_changes_with_every_field_and_the_digest_with_the_served_ones(
    fine: Profile, model: ModelIdentity
) -> None:
    def with_manifest(**fields: object) -> Profile:
        return Profile(fine.manifest.model_copy(update=fields), fine.tensors)

    other = model.model_copy(update={"fingerprint": None})
    for variant in (
        with_manifest(alpha=AlphaRange(default=1.0, min=-1.0, max=9)),
        with_manifest(description="x"),
        with_manifest(base_model=other),
        with_manifest(touched={1: 0.5}),
        with_manifest(shares={1: (0.5, 0.25, 0.25)}),
        with_manifest(ported_from=(other,)),
    ):
        assert variant.digest == fine.digest
        assert variant.content_digest != fine.content_digest
    limited = with_manifest(gate=Gate(max_distance=2.5, limits={1: (1.0, None, 1.0)}))
    assert limited.digest != fine.digest
    assert with_manifest().content_digest == fine.content_digest


def test_a_profile_takes_the_oldest_version_that_holds_it(fine: Profile, model: ModelIdentity) -> None:
    arrays = {1: (fine.tensors[1].named["centroids"], fine.tensors[1].named["vectors"])}
    assert Profile.fine("p", arrays, model=model).manifest.format_version == 1
    assert Profile.fine("p", arrays, model=model, touched={1: 0.5}).manifest.format_version == 2
    assert Profile.fine("p", arrays, model=model, gate=Gate(limits={1: (1, 2, None)})).manifest.format_version == 2
    vectors = [SteeringVector(0, np.ones(4))]
    assert Profile.coarse("p", vectors, model=model, ported_from=[model]).manifest.format_version == 2


def test_the_order_in_which_layers_are_given_does_not_matter(coarse: Profile, model: ModelIdentity) -> None:
    vectors = [SteeringVector(layer, tensor.named["vector"]) for layer, tensor in coarse.tensors.items()]
    assert Profile.coarse("p", vectors, model=model).digest == Profile.coarse("p", vectors[::-1], model=model).digest


def test_a_profile_without_vectors_or_with_two_for_a_layer_is_refused(model: ModelIdentity) -> None:
    with pytest.raises(FormatError, match="layers"):
        Profile.coarse("p", [], model=model)
    with pytest.raises(FormatError, match="two vectors for one layer"):
        Profile.coarse("p", [SteeringVector(0, np.ones(4)), SteeringVector(0, np.ones(4))], model=model)


def test_vectors_of_another_size_than_the_models_are_refused(model: ModelIdentity) -> None:
    with pytest.raises(FormatError, match="size 5; the base model's hidden size is 4"):
        Profile.coarse("p", [SteeringVector(0, np.ones(5))], model=model)


def test_every_concept_needs_a_centroid_and_a_vector(model: ModelIdentity) -> None:
    with pytest.raises(VectorError, match="must agree"):
        Profile.fine("p", {0: (np.ones((3, 4)), np.ones((2, 4)))}, model=model)


def test_numbers_that_would_overflow_when_served_are_refused(model: ModelIdentity) -> None:
    with pytest.raises(IntegrityError, match="entries up to 1e"):
        Profile.coarse("p", [SteeringVector(0, np.full(4, -2e6))], model=model)
    with pytest.raises(IntegrityError, match="centroids"):
        Profile.fine("p", {0: (np.full((1, 4), 1e30), np.ones((1, 4)))}, model=model)


def test_a_manifest_and_tensors_that_disagree_make_no_profile(coarse: Profile, fine: Profile) -> None:
    vector, rows = CoarseLayer(np.ones(4, np.float32)), FineLayer(*[np.ones((1, 4), np.float32)] * 2)
    with pytest.raises(FormatError, match="its manifest says otherwise"):
        Profile(coarse.manifest, {0: vector})
    with pytest.raises(FormatError, match="FineLayer in a coarse"):
        Profile(coarse.manifest, {0: rows, 2: coarse.tensors[2]})
    with pytest.raises(IntegrityError, match="the manifest gives the norm 5, the tensors have 2"):
        Profile(coarse.manifest, {0: vector, 2: coarse.tensors[2]})
    with pytest.raises(FormatError, match="CoarseLayer in a fine"):
        Profile(fine.manifest, {1: vector})
