"""The `transphere` operator namespace: schemas here, kernels wherever they were built.

Each op is defined with its reference, plain PyTorch, as the kernel for every device. `transphere._C`, where it was built, registers faster
kernels over it, so a call goes to the best that exists without an `if`. Under `<name>_reference` the reference stays reachable by itself,
and under `<name>_triton` the Triton kernel of `transphere.kernels`, which also serves CUDA tensors where `_C` has no CUDA kernel.
"""

import importlib
import os
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

LIB = torch.library.Library("transphere", "DEF")
VARIANTS = {"reference": "_reference"}  # backends that are ops of their own, <op><suffix>; the tests add to them
DEFINED: dict[str, Callable[..., None]] = {}  # for each op, what defines another variant of it: (suffix, {dispatch key: kernel})

try:
    _C = importlib.import_module("transphere._C")
except ModuleNotFoundError as error:  # not built; a module that was built but does not load raises
    if error.name != "transphere._C":
        raise
    _C = None

# Triton itself is imported on the first launch; under its interpreter the kernels run on CPU tensors.
HAS_TRITON = find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
TRITON_BY_DEFAULT: set[str] = set()  # ops whose CUDA tensors go to Triton

REBUILD = "build the extension: pip install --no-build-isolation -e . (see docs/switches.md)"


def define(
    schema: str,
    *,
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., None] | None = None,
) -> None:
    """Define an op and its twins, reference and Triton. `backward(op, ctx, *grads)` reaches its own backward op as `op("name")`, of the
    same variant; without a `backward` the op raises when it is differentiated."""
    name, signature = schema.split("(", 1)

    def not_differentiable(*_: Any) -> None:
        raise RuntimeError(f"{name.removesuffix('_backward')}: second derivatives are not available")

    def variant(suffix: str, kernels: dict[str, Callable[..., Any]]) -> None:
        LIB.define(f"{name}{suffix}({signature}", tags=(torch.Tag.pt2_compliant_tag,))
        for key, kernel in kernels.items():
            LIB.impl(f"{name}{suffix}", kernel, key)
        torch.library.register_fake(f"transphere::{name}{suffix}", fake)
        rule = partial(backward, partial(_variant, suffix)) if backward else not_differentiable
        torch.library.register_autograd(f"transphere::{name}{suffix}", rule, setup_context=setup_context)

    DEFINED[name] = variant
    variant("", {"CompositeExplicitAutograd": reference})
    variant("_reference", {"CompositeExplicitAutograd": reference})
    if has_triton(name):
        variant("_triton", {key: partial(_launch, name) for key in (("CUDA", "CPU") if INTERPRETED else ("CUDA",))})
        if not has_kernel(name, "cuda"):
            LIB.impl(name, partial(_launch, name), "CUDA")
            TRITON_BY_DEFAULT.add(name)


def _kernels(name: str) -> str:
    return f"transphere.kernels.{name.removesuffix('_backward')}"


@cache
def has_triton(name: str) -> bool:
    """Whether Triton is installed and `transphere.kernels` has a file for the op."""
    return HAS_TRITON and find_spec(_kernels(name)) is not None


def _launch(name: str, *args: Any) -> Any:
    return getattr(importlib.import_module(_kernels(name)), name)(*args)


def _variant(variant: str, name: str) -> torch._ops.OpOverload:
    return getattr(torch.ops.transphere, f"{name}{variant}").default


def op(name: str, backend: str | None, like: Tensor) -> torch._ops.OpOverload:
    """The operator for `backend` on `like`'s device; None lets the dispatcher choose.

    Raises:
        ValueError: an unknown backend.
        RuntimeError: a backend that was not built or does not serve the device, with how to get it.
    """
    if backend is None:
        return _variant("", name)
    if backend in VARIANTS:
        return _variant(VARIANTS[backend], name)
    if backend in ("cpu", "cuda"):
        if like.device.type != backend:
            raise RuntimeError(f"backend {backend!r} was asked for tensors on {like.device}: move them, or pass backend=None")
        if not has_kernel(name, backend):
            raise RuntimeError(f"backend {backend!r} has no compiled kernel for {name} here: {REBUILD}")
        return _variant("", name)
    if backend == "triton":
        if not HAS_TRITON:
            raise RuntimeError("backend 'triton' needs Triton: pip install triton")
        if not has_triton(name):
            raise RuntimeError(f"backend 'triton' has no kernel for {name} in this version: pass backend=None")
        if like.device.type == "cpu" and not INTERPRETED:
            raise RuntimeError(f"backend 'triton' was asked for tensors on {like.device}: move them to a GPU, or pass backend=None")
        return _variant("_triton", name)
    raise ValueError(f"backend: expected None, 'reference', 'cpu', 'cuda' or 'triton', got {backend!r}")


def has_kernel(name: str, device_type: str) -> bool:
    """Whether a compiled kernel of `name`, not Triton's, is registered for "cpu" or "cuda"."""
    if device_type == "cuda" and name in TRITON_BY_DEFAULT:
        return False
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"transphere::{name}", device_type.upper())


def build_info() -> dict[str, Any]:
    """What this installation was built with: version, torch, whether the extension is there, its compiler, the CUDA
    architectures ("80;90") or False, the CPU level in use."""
    from . import __version__

    info: dict[str, Any] = {"version": __version__, "torch": torch.__version__, "extension": _C is not None, "cuda": False}
    return info | (_C.build_info() if _C is not None else {})
