"""numba in a process must not stop vLLM's CPU worker there."""

from __future__ import annotations

import subprocess
import sys

# In a process of its own: what is mended stays mended.
_CHECK = """
import numba
from llvmlite.binding import ffi
assert hasattr(ffi.lib, "__dict__"), "nothing to mend any more"
from trimtab.plugin.steps.compiled import njit
assert not hasattr(ffi.lib, "__dict__")
assert numba.njit(lambda x: x + 1)(1) == 2
"""


def test_llvmlites_library_has_no_dictionary_and_numba_still_compiles() -> None:
    ended = subprocess.run([sys.executable, "-c", _CHECK], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
