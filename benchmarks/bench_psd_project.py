"""Projections of a matrix of 1024 dimensions to the positive cone: one that is positive definite already, and m-LTM's initial one."""

import torch
from harness import BOTH, FORWARD, Case, Way

import transphere as ts


def clamped(M):
    values, V = torch.linalg.eigh(0.5 * (M + M.mT))
    return (V * values.clamp(min=0)[..., None, :]) @ V.mT


def svd(M):
    """What the released code of m-LTM does: its result is M, so it is not compared."""
    U, s, V = torch.linalg.svd(M)
    return (U * s.clamp(min=0)) @ V


def cases(device, quick):
    for d in [128] if quick else [1024, 256]:
        g = torch.Generator().manual_seed(0)
        A, U = torch.randn(d, d, generator=g), torch.rand(d, d, generator=g)
        eye = torch.eye(d)
        matrices = {"indefinite": 0.5 * (U + U.mT) + eye} | ({} if quick else {"positive definite": A @ A.mT / d + 0.1 * eye})
        for kind, M in matrices.items():
            yield Case(
                op="psd_project",
                shape=f"d = {d}, {kind}",
                inputs=(M.to(device),),
                ours={
                    "ours": Way(ts.psd_project),
                    "ours, eigh": Way(lambda M: ts.psd_project(M, method="eigh"), differentiable=False),
                    "ours, polar": Way(lambda M: ts.psd_project(M, method="polar"), differentiable=False),
                },
                reference=clamped,
                # The derivative of eigenvectors, of which clamped's consists, divides by differences of eigenvalues.
                peers={
                    "eager torch, eigh": Way(clamped, differentiable=False),
                    "svd, as released with m-LTM": Way(svd, differentiable=False, check=lambda value, gradients: None),
                },
                floors={
                    "Cholesky": Way(lambda M: torch.linalg.cholesky_ex(M)[0], differentiable=False),
                    "eigh": Way(lambda M: torch.linalg.eigh(M)[1], differentiable=False),
                    "a product": Way(lambda M: M @ M, differentiable=False),
                },
                bytes_moved={FORWARD: 8 * d * d, BOTH: 16 * d * d},
            )
