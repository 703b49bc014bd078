"""The rooms of offline: what each lists is there, is little, and loads torch only where it must."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from operator import attrgetter
from pathlib import Path
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


@pytest.mark.parametrize("package", ["trimtab.offline", "trimtab.offline.models", "trimtab.offline.states"])
def test_what_a_type_checker_sees_of_a_package_is_what_it_hands_out(package: str) -> None:
    """The lazy names are written twice, since a checker follows imports only and Python must not."""
    tree = ast.parse(Path(str(import_module(package).__file__)).read_text())
    (checked,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    found = {
        (alias.name, node.module) for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    handed = import_module(package)
    for name, module in found:
        assert name in handed.__all__
        assert getattr(handed, name) is getattr(import_module(f"{package}.{module}"), name)
    eager = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert {*handed.__all__} <= {name for name, _ in found} | eager


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
