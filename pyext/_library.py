"""The `transphere` operator namespace: schemas here, kernels wherever they were built.

Each op is defined with its reference, plain PyTorch, as the kernel for every device. `transphere._C`, where it was built, registers faster
kernels over it, so a call goes to the best that exists without an `if`. Under `<name>_reference` the reference stays reachable by itself.
"""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

LIB = torch.library.Library("transphere", "DEF")
VARIANTS = {"reference": "_reference"}  # backends that are ops of their own, <op><suffix>; the tests add to them
DEFINED: dict[str, Callable[..., None]] = {}  # for each op, what defines another variant of it: (suffix, kernel or None)

try:
    _C = importlib.import_module("transphere._C")
except ModuleNotFoundError as error:  # not built; a module that was built but does not load raises
    if error.name != "transphere._C":
        raise
    _C = None

REBUILD = "build the extension: pip install --no-build-isolation -e . (see docs/switches.md)"


def define(
    schema: str,
    *,
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., None] | None = None,
) -> None:
    """Define an op and its reference twin. `backward(op, ctx, *grads)` reaches its own backward op as `op("name")`, of the same variant;
    without a `backward` the op raises when it is differentiated."""
    name, signature = schema.split("(", 1)

    def not_differentiable(*_: Any) -> None:
        raise RuntimeError(f"{name.removesuffix('_backward')}: second derivatives are not available")

    def variant(suffix: str, kernel: Callable[..., Any] | None) -> None:
        LIB.define(f"{name}{suffix}({signature}", tags=(torch.Tag.pt2_compliant_tag,))
        if kernel is not None:
            LIB.impl(f"{name}{suffix}", kernel, "CompositeExplicitAutograd")
        torch.library.register_fake(f"transphere::{name}{suffix}", fake)
        rule = partial(backward, partial(_variant, suffix)) if backward else not_differentiable
        torch.library.register_autograd(f"transphere::{name}{suffix}", rule, setup_context=setup_context)

    DEFINED[name] = variant
    variant("", reference)
    variant("_reference", reference)


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
        raise RuntimeError(f"backend 'triton' has no kernel for {name} in this version: pass backend=None")
    raise ValueError(f"backend: expected None, 'reference', 'cpu', 'cuda' or 'triton', got {backend!r}")


def has_kernel(name: str, device_type: str) -> bool:
    """Whether a compiled kernel of `name` is registered for "cpu" or "cuda"."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"transphere::{name}", device_type.upper())


def build_info() -> dict[str, Any]:
    """What this installation was built with: version, torch, whether the extension is there, its compiler, the CUDA
    architectures ("80;90") or False, the CPU level in use."""
    from . import __version__

    info: dict[str, Any] = {"version": __version__, "torch": torch.__version__, "extension": _C is not None, "cuda": False}
    return info | (_C.build_info() if _C is not None else {})
