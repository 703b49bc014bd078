"""Lets a CUDA build of torchvision be imported beside a CPU build of torch.

PyPI's torchvision for Linux is built for CUDA. Beside a CPU torch its native part does not load, so the operators that
it would have declared are missing, and `import torchvision` dies with "operator torchvision::nms does not exist" when it
registers shape functions for them. Most of vLLM's vision models import torchvision, for its transforms, not for these
operators.

torch calls `cure` at the end of its own import (entry point in the group `torch.backends`). It declares the two schemas
that torchvision's import needs. It gives them no implementation: calling `torchvision.ops.nms` still fails.
"""

import mmap
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

_declared: list[object] = []  # a library that is collected takes its schemas with it


def needs_cure(torch_cuda: str | None, torchvision_version: str, links_cuda: bool) -> bool:
    """Whether torchvision's native part cannot load beside this torch.

    torch_cuda: `torch.version.cuda`, None for a CPU build. torchvision_version: as its metadata says; a local version
    ("0.28.0+cpu") names a build that was chosen on purpose and is left alone. links_cuda: whether its native part links
    torch's CUDA library. Declaring a schema that the native part declares as well would break its import, hence all three.
    """
    return torch_cuda is None and "+" not in torchvision_version and links_cuda


def cure() -> None:
    """Declare `torchvision::nms` and `torchvision::qnms` where torchvision needs it; otherwise do nothing."""
    import torch  # not above: whoever imports this module before torch would find it half made when torch calls back

    if _declared or torch.version.cuda is not None:
        return
    try:
        torchvision = distribution("torchvision")
    except PackageNotFoundError:
        return
    if needs_cure(torch.version.cuda, torchvision.version, _links_cuda(torchvision)):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in _OPERATORS:
            library.define(name + _SCHEMA)
        _declared.append(library)


def _links_cuda(torchvision: Distribution) -> bool:
    native = Path(str(torchvision.locate_file("torchvision/_C.so")))
    if not native.is_file() or native.stat().st_size == 0:
        return False
    with native.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
        return image.find(b"libtorch_cuda.so") != -1
