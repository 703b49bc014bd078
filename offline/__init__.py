"""From a model's activations to steering profiles: representations → dictionaries → profiles. No vLLM here.

represent, Reader                          answer questions and keep rows of the residual stream
LastPrompt, Predicts, MeanGenerated        which rows (docs/method.md §1)
load_states, LayerStates                       read them back, one layer at a time
kmeans, mini_batch_kmeans, class_means,    rows → ConceptDictionary (section 2)
  semi_nmf, pca, simple
activations, strongest                     which concepts a row activates
top_words, word_overlap                    which words a concept stands for
pair_states, study_shift                     what a fine-tune did to concepts (section 3)
shifts_of, recovered, match_concepts       its parts
coarse_profile, fine_profile               rows and dictionaries → Profile (section 4)
profile_of_shift                           a shift → Profile

The modules, by what they are about:

models and samples   data, reader, vocabulary, words, pictures, imports
rows                 rules, collect, rows
concepts             dictionary, streamed, factors, seminmf, activation, ground, clip, quality, choice, cards
shift                pairs, matching, shift, controls, bootstrap, shift_study, shift_run, drift, shift_profile
steering             steer, kinds, select, nulls, operating, stability
evaluation           benchmark, vqav2, vqav2_text, coco, gender, pope, mm_safetybench, rates, repetition, evaluation
  of an endpoint     endpoint, answers, data_url
findings             findings (what studies write down), report/ (one page of them)
the command          cli, cli_concepts, cli_shift, cli_evaluate, cli_report, cli_saving, console, show
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .concepts.activation import activations, strongest
    from .concepts.factors import pca, semi_nmf, simple
    from .concepts.grounding import top_words, word_overlap
    from .concepts.kmeans import class_means, kmeans
    from .concepts.mini_batch import mini_batch_kmeans
    from .models.reader import Reader
    from .shift.deltas import recovered, shifts_of
    from .shift.matching import match_concepts
    from .shift.profile import profile_of_shift
    from .shift.study import study_shift
    from .states.paired import pair_states
    from .states.represent import represent
    from .states.rules import LastPrompt, MeanGenerated, Predicts
    from .states.store import LayerStates, load_states
    from .steering.profiles import coarse_profile, fine_profile

__all__ = [
    "LastPrompt",
    "LayerStates",
    "MeanGenerated",
    "Predicts",
    "Reader",
    "activations",
    "class_means",
    "coarse_profile",
    "fine_profile",
    "kmeans",
    "load_states",
    "match_concepts",
    "mini_batch_kmeans",
    "pair_states",
    "pca",
    "profile_of_shift",
    "recovered",
    "represent",
    "semi_nmf",
    "shifts_of",
    "simple",
    "strongest",
    "study_shift",
    "top_words",
    "word_overlap",
]

_HOMES = {
    "LastPrompt": "states.rules",
    "LayerStates": "states.store",
    "MeanGenerated": "states.rules",
    "Predicts": "states.rules",
    "Reader": "models.reader",
    "activations": "concepts.activation",
    "class_means": "concepts.kmeans",
    "coarse_profile": "steering.profiles",
    "fine_profile": "steering.profiles",
    "kmeans": "concepts.kmeans",
    "load_states": "states.store",
    "match_concepts": "shift.matching",
    "mini_batch_kmeans": "concepts.mini_batch",
    "pair_states": "states.paired",
    "pca": "concepts.factors",
    "profile_of_shift": "shift.profile",
    "recovered": "shift.deltas",
    "represent": "states.represent",
    "semi_nmf": "concepts.factors",
    "shifts_of": "shift.deltas",
    "simple": "concepts.factors",
    "strongest": "concepts.activation",
    "study_shift": "shift.study",
    "top_words": "concepts.grounding",
    "word_overlap": "concepts.grounding",
}


def __getattr__(name: str) -> Any:
    # torch and scikit-learn take seconds to import; `trimtab inspect` needs neither. No module may be called like a
    # public name: once imported it would stand in its place.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
