"""Concept dictionaries: how they are made, how good they are, and what their concepts stand for.

METHODS                  the ways to make a dictionary, by name
kmeans, class_means      the two that most profiles are made with
activations, strongest   how strongly states activate concepts, and which one most
top_words, word_overlap  which words a concept stands for, and how many two concepts share
residual                 what the concepts leave of the states
"""

from __future__ import annotations

from .grounding import top_words, word_overlap
from .kmeans import class_means, kmeans
from .methods import METHODS, activations, strongest
from .quality import residual

__all__ = [
    "METHODS",
    "activations",
    "class_means",
    "kmeans",
    "residual",
    "strongest",
    "top_words",
    "word_overlap",
]
