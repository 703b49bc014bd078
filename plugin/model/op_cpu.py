"""Builds and loads the CPU form of the op, op_cpu.cpp, with the C++ compiler that torch.compile uses as well.

A build takes seconds and is kept among torch's other extensions (TORCH_EXTENSIONS_DIR, or ~/.cache/torch_extensions),
under a name that says of which source and for which torch it is. It is made in a folder of its own and moved in place:
processes that start at once, or end halfway, leave nothing behind that another one would wait for.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import subprocess
import tempfile
from pathlib import Path

import torch
from torch.utils import cpp_extension

from ..errors import StartupError

__all__ = ["load"]

logger = logging.getLogger("vllm.trimtab")

_SOURCE = Path(__file__).with_name("op_cpu.cpp")
# Vector sums may be reordered where op_cpu.cpp says so; nowhere may a product and a sum become one rounding, so that
# what is added is the same on every processor.
_FLAGS = ["-O3", "-fopenmp-simd", "-ffp-contract=off"]


@functools.cache
def load() -> None:
    """Register the op's CPU form with torch; builds it first where that was never done.

    Raises:
        StartupError: there is no C++ compiler, or it failed.
    """
    digest = hashlib.sha256("\0".join((_SOURCE.read_text(), torch.__version__, *_FLAGS)).encode()).hexdigest()[:12]
    library = _folder() / f"trimtab_op_{digest}.so"
    if library.exists():
        torch.ops.load_library(library)
        return
    logger.info("trimtab: building the CPU form of its operator, once (%s)", library)
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
            cpp_extension.load(
                library.stem,
                [str(_SOURCE)],
                extra_cflags=_FLAGS,
                build_directory=scratch,
                is_python_module=False,
            )
            os.replace(Path(scratch) / library.name, library)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise StartupError(
            "the CPU form of trimtab's operator cannot be built; install a C++ compiler (g++), which vLLM's own "
            f"compilation on a CPU needs as well, and see that {library.parent} can be written ({error})"
        ) from error


def _folder() -> Path:
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root()
    return Path(root) / "trimtab"
