"""Builds and loads the CPU form of the op, op_cpu.cpp, with the C++ compiler that torch.compile uses as well.

A build takes seconds and is kept among torch's other extensions (TORCH_EXTENSIONS_DIR, or ~/.cache/torch_extensions),
under a name that says of which source and for which torch it is. What lies there is code that runs in this process. So
it is loaded only if it is whole (it ends with its own SHA-256), belongs to this user or root, and cannot be written by
others; else it is built again. Where nothing can be kept, each process builds its own in a temporary folder.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import logging
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

_BUILD = "trimtab-build-"
_ABANDONED = 60.0  # seconds; writing one takes a hundredth


@functools.cache
def load() -> None:
    """Register the op's CPU form with torch; builds it first where there is none to load.

    Raises:
        StartupError: there is no C++ compiler, or it failed, or nothing can be written anywhere.
    """
    digest = hashlib.sha256("\0".join((_SOURCE.read_text(), torch.__version__, *_FLAGS)).encode()).hexdigest()[:12]
    library = _folder() / f"trimtab_op_{digest}.so"
    if os.path.lexists(library):
        if problem := _problem(library):
            logger.warning("trimtab: %s is not loaded, because %s; it is built again", library, problem)
        else:
            torch.ops.load_library(library)
            return
    logger.info("trimtab: building the CPU form of its operator, once (%s)", library)
    try:
        with _scratch() as scratch:
            cpp_extension.load(
                library.stem, [str(_SOURCE)], extra_cflags=_FLAGS, build_directory=str(scratch), is_python_module=False
            )  # which loads it as well
            _keep(scratch / library.name, library)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise StartupError(
            "the CPU form of trimtab's operator cannot be built; install a C++ compiler (g++), which vLLM's own "
            "compilation on a CPU needs as well, and set TMPDIR to a folder that this user can write "
            f"({error})"
        ) from error


def _folder() -> Path:
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root()
    return Path(root) / "trimtab"


def _problem(library: Path) -> str | None:
    """Why a library is not to be loaded; None for one that is."""
    try:
        for path, kind in ((library.parent, stat.S_ISDIR), (library, stat.S_ISREG)):
            found = path.lstat()
            if not kind(found.st_mode):
                return f"{path} is a link, or no file"
            if found.st_uid not in (0, os.geteuid()):
                return f"{path} belongs to another user"
            if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return f"{path} can be written by others"
        content = library.read_bytes()
    except OSError as error:
        return f"it cannot be read ({error})"
    size = hashlib.sha256().digest_size
    return None if hashlib.sha256(content[:-size]).digest() == content[-size:] else "it is cut short or changed"


def _keep(built: Path, library: Path) -> None:
    """Put a library in place for the next start; a warning where that cannot be done."""
    content = built.read_bytes()
    folder, fresh = library.parent, None
    try:
        for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid not in (0, os.geteuid()):
            raise PermissionError(f"{folder} is a link, or belongs to another user")
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(0o700)
        for old in folder.glob(f"{_BUILD}*"):  # of a process that was killed here
            if time.time() - old.stat().st_mtime > _ABANDONED:
                old.unlink()
        descriptor, fresh = tempfile.mkstemp(prefix=_BUILD, dir=folder)
        with open(descriptor, "wb") as file:
            file.write(content + hashlib.sha256(content).digest())
            file.flush()
            os.fsync(descriptor)
        os.replace(fresh, library)
    except OSError as error:
        logger.warning(
            "trimtab: its operator could not be kept in %s (%s), so that the next start builds it again; to keep it, "
            "set TORCH_EXTENSIONS_DIR to a folder that this user can write",
            folder,
            error,
        )
        if fresh is not None:
            with suppress(OSError):
                os.unlink(fresh)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A private folder to build in, locked while this process lives. Removes those of builds that were killed."""
    # The file is not called "lock": torch would wait for one of that name to go.
    for old in Path(tempfile.gettempdir()).glob(f"{_BUILD}*/alive"):
        _remove_if_left(old)
    with tempfile.TemporaryDirectory(prefix=_BUILD) as name, open(Path(name) / "alive", "wb", buffering=0) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(b"locked")  # an empty one may be about to be locked
        yield Path(name)


def _remove_if_left(lock: Path) -> None:
    with suppress(OSError), open(lock, "rb") as file:
        if os.fstat(file.fileno()).st_uid == os.geteuid() and file.read():
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
