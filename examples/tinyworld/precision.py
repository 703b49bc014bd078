"""What the tiny LLaVA is served in: bfloat16, its own dtype, where the processor computes in it, else float32.

    vllm serve … --dtype $(python -m examples.tinyworld.precision)

A CPU with AVX2 only emulates bfloat16: there vLLM serves this model in float32 at twice the speed.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["served_dtype"]


def served_dtype() -> Literal["auto", "float32"]:
    """A value for vLLM's `--dtype`: "float32" on a CPU that emulates bfloat16, else "auto"."""
    from trimtab.offline.models.precision import device_named, emulates_half

    return "float32" if emulates_half(device_named(None)) else "auto"


if __name__ == "__main__":
    print(served_dtype())
