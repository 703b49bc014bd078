"""Steering artefacts: their algebra, their form on disk, and every check on the way back. Numpy only, no torch.

SteeringVector     a direction after one decoder block, with + - * /
ConceptDictionary  the concepts of a layer
Profile            a named, served bundle of vectors: `Profile.coarse`, `Profile.fine`
Registry           the folder of profiles that a server serves
"""

from .concepts import ConceptDictionary
from .format import load_profile, save_profile, verify_profile
from .gguf import read_gguf
from .identity import ModelIdentity
from .manifest import AlphaRange, Gate, ProfileManifest
from .profile import Profile
from .registry import Registry
from .vector import SteeringVector

__all__ = [
    "AlphaRange",
    "ConceptDictionary",
    "Gate",
    "ModelIdentity",
    "Profile",
    "ProfileManifest",
    "Registry",
    "SteeringVector",
    "load_profile",
    "read_gguf",
    "save_profile",
    "verify_profile",
]
