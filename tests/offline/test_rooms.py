"""The rooms of offline: what each lists is there, is little, and loads torch only where it must."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from operator import attrgetter
from types import ModuleType
from typing import get_args

import pytest

import trimtab.offline
from trimtab.offline.concepts import METHODS
from trimtab.vectors.concepts import Method

ROOMS = ("models", "states", "concepts", "shift", "steering", "evaluation", "report")


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_lists_is_there_and_is_no_module(room: str) -> None:
    package = import_module(f"trimtab.offline.{room}")
    assert len(package.__all__) <= 8
    for name in package.__all__:
        assert not isinstance(getattr(package, name), ModuleType), name


def test_the_top_level_hands_on_what_the_rooms_hold() -> None:
    assert len(trimtab.offline.__all__) == 8
    for name in trimtab.offline.__all__:
        (room,) = (room for room in ROOMS if name in import_module(f"trimtab.offline.{room}").__all__)
        assert getattr(trimtab.offline, name) is getattr(import_module(f"trimtab.offline.{room}"), name)
    with pytest.raises(AttributeError, match="has no attribute 'readers'"):
        attrgetter("readers")(trimtab.offline)


def test_dictionaries_profiles_and_evaluation_need_no_torch() -> None:
    rooms = ", ".join(f"trimtab.offline.{room}" for room in ("concepts", "steering", "evaluation", "report"))
    code = f"import sys, {rooms}; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_every_method_that_a_dictionary_may_name_has_its_record() -> None:
    assert set(METHODS) == set(get_args(Method))
    assert {name for name, method in METHODS.items() if method.partition} == {
        "kmeans",
        "mini-batch-kmeans",
        "class-means",
    }
