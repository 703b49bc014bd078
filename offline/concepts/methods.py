"""The methods that make a dictionary, one record each, and what follows from a dictionary's method (docs/method.md §2).

A new method is a name in `trimtab.vectors.concepts.Method` and a record in `METHODS`; the command line's choices
follow from the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab.vectors import ConceptDictionary
from trimtab.vectors.arrays import finite_float32
from trimtab.vectors.concepts import Method as MethodName

from ..errors import SettingError
from ..states.store import Float32, Int64, LayerStates, joined
from .activation import Activation, coefficients, cosine, nearness, projection
from .factors import pca, semi_nmf, simple
from .kmeans import class_means, kmeans
from .mini_batch import mini_batch_kmeans

__all__ = ["METHODS", "Making", "Method", "activations", "check_partition", "method_of", "rebuilt", "strongest"]


@dataclass(frozen=True)
class Making:
    """How a dictionary is to be made. A method ignores the settings that mean nothing to it.

    k: number of concepts. n_init: number of starts. min_count: fewest states of a label.
    """

    k: int = 20
    seed: int = 0
    n_init: int = 10
    min_count: int = 1
    progress: bool = False


@dataclass(frozen=True)
class Method:
    """One way to make a dictionary.

    make: the dictionary of the states in all blocks. activate: states [N, D] and centroids [K, D] give activations
    [N, K]. partition: whether a state activates its nearest centre, which is what a gate computes at serving time; only
    such a dictionary can be a fine profile. linear: whether a state is rebuilt by all its activations together; if not,
    by the one concept that it activates most. sized: whether it makes as many concepts as `Making.k` says.
    """

    name: MethodName
    make: Callable[[Iterable[LayerStates], Making], ConceptDictionary]
    activate: Activation
    partition: bool = False
    linear: bool = False
    sized: bool = True

    def rebuild(self, values: Float32, centroids: Float32) -> Float32:
        """What the concepts say of states [N, D]: float32 [N, D]."""
        activated = self.activate(values, centroids)
        if not self.linear:
            nearest: Float32 = centroids[np.argmax(activated, axis=1)]
            return nearest
        rebuilt: Float32 = activated.astype(np.float32) @ centroids
        return rebuilt


METHODS: dict[MethodName, Method] = {
    method.name: method
    for method in (
        Method(
            "kmeans",
            lambda blocks, how: kmeans(joined(blocks), how.k, how.seed, how.n_init, progress=how.progress),
            nearness,
            partition=True,
        ),
        Method(
            "mini-batch-kmeans",
            lambda blocks, how: mini_batch_kmeans(blocks, how.k, how.seed, how.n_init, progress=how.progress),
            nearness,
            partition=True,
        ),
        Method(
            "class-means",
            lambda blocks, how: class_means(joined(blocks), how.min_count),
            nearness,
            partition=True,
            sized=False,
        ),
        Method(
            "semi-nmf",
            lambda blocks, how: semi_nmf(joined(blocks), how.k, how.seed, how.n_init, progress=how.progress),
            coefficients,
            linear=True,
        ),
        Method("pca", lambda blocks, how: pca(joined(blocks), how.k, how.seed), projection, linear=True),
        Method("simple", lambda blocks, how: simple(joined(blocks), how.k), cosine),
    )
}


def method_of(dictionary: ConceptDictionary) -> Method:
    """The record of the method that made a dictionary."""
    return METHODS[dictionary.method]


def check_partition(dictionary: ConceptDictionary) -> None:
    """Passes when a gate can find a dictionary's nearest concept.

    Raises:
        SettingError: its concepts are directions, not centres.
    """
    if not method_of(dictionary).partition:
        centres = ", ".join(sorted(method.name for method in METHODS.values() if method.partition))
        raise SettingError(
            f"the concepts of a {dictionary.method} dictionary are no centres, so no gate can find the nearest; "
            f"make one with --method {centres}"
        )


def activations(dictionary: ConceptDictionary, values: npt.ArrayLike) -> npt.NDArray[np.floating]:
    """[N, K]: the activation of each concept by each of the states `values` [N, D]; float64 for centres, else float32.

    Raises:
        VectorError: values that are not a finite [N, D]; SettingError: another D than the dictionary's.
    """
    return method_of(dictionary).activate(_checked(dictionary, values), dictionary.centroids)


def strongest(dictionary: ConceptDictionary, values: npt.ArrayLike) -> Int64:
    """The concept that each of the states `values` [N, D] activates most, int64 [N]; the lowest index wins a tie.

    If the method is a partition, this is what serving computes (`ConceptDictionary.nearest`).

    Raises:
        VectorError, SettingError: as `activations`.
    """
    found: Int64 = np.argmax(activations(dictionary, values), axis=1).astype(np.int64)
    return found


def rebuilt(dictionary: ConceptDictionary, values: npt.ArrayLike) -> Float32:
    """What the concepts say of the states `values` [N, D]: float32 [N, D].

    Raises:
        VectorError, SettingError: as `activations`.
    """
    return method_of(dictionary).rebuild(_checked(dictionary, values), dictionary.centroids)


def _checked(dictionary: ConceptDictionary, values: npt.ArrayLike) -> Float32:
    states = finite_float32(values, 2, "values")
    size = dictionary.centroids.shape[1]
    if states.shape[1] != size:
        raise SettingError(
            f"states of size {states.shape[1]} were given to a dictionary of size {size}; use one model's"
        )
    return states
