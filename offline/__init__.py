"""From a model's activations to steering profiles. No vLLM here.

    represent     a model and questions → a folder of states of the residual stream
    load_states   the states of one layer
    kmeans        states → a dictionary of concepts
    coarse_profile, fine_profile   states and dictionaries → a steering profile

These, with `Reader` and two rules, are the way from a model to a profile. The rooms hold the rest:

    models       a model that is read: its answers, its states, its vocabulary
    states       samples, the rules that choose states, the folder that keeps them
    concepts     dictionaries: how they are made, how good they are, what their concepts stand for
    shift        what a fine-tune did to concepts
    steering     states and dictionaries → profiles; which pair of concepts, how strong, null controls
    evaluation   the data sets of the field, asked of an endpoint
    data         data sets, tables and folders of pictures → samples, split by picture
    report       one HTML page of findings
    cli          the command `trimtab`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lazy import lazily

if TYPE_CHECKING:
    from .concepts import kmeans as kmeans
    from .models import Reader as Reader
    from .states import LastPrompt as LastPrompt
    from .states import Predicts as Predicts
    from .states import load_states as load_states
    from .states import represent as represent
    from .steering import coarse_profile as coarse_profile
    from .steering import fine_profile as fine_profile

_ROOMS = {
    "LastPrompt": ".states",
    "Predicts": ".states",
    "Reader": ".models",
    "coarse_profile": ".steering",
    "fine_profile": ".steering",
    "kmeans": ".concepts",
    "load_states": ".states",
    "represent": ".states",
}
__all__ = [*_ROOMS]
__getattr__ = lazily(__name__, _ROOMS)
