"""numba in a process must not stop vLLM's CPU worker there."""

from __future__ import annotations

import subprocess
import sys

# In a process of its own: the cure cannot be taken back.
_CHECK = """
import numba
from llvmlite.binding import ffi
from trimtab.plugin.llvmlite_cure import cure
assert hasattr(ffi.lib, "__dict__"), "nothing to cure any more"
cure(); cure()
assert not hasattr(ffi.lib, "__dict__")
assert numba.njit(lambda x: x + 1)(1) == 2
"""


def test_llvmlites_handle_has_no_dictionary_and_numba_still_compiles() -> None:
    ended = subprocess.run([sys.executable, "-c", _CHECK], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
