"""Where one training step of the demo spends its time: forward and backward of L_C + L_S by part, on frozen features, medians of one run.

Writes benchmarks/results/loss_step.md. Run by `make profile` on a quiet machine.
"""

import platform
import statistics
import subprocess
import time
from pathlib import Path

import torch
from torch import nn

import transphere as ts

BATCH, D, L, P, S = 128, 512, 16, 100, 3
FEATURES = (1280, 384, 288)
ROUNDS = 40


def median_ms(f) -> float:
    for _ in range(3):
        f()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        f()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> None:
    torch.manual_seed(0)
    heads = nn.ModuleList(nn.Sequential(nn.Linear(f, 512), nn.GELU(), nn.Linear(512, D + 1)) for f in FEATURES)
    inputs = [torch.randn(BATCH, f) for f in FEATURES]
    optimiser = torch.optim.Adam(heads.parameters(), lr=1e-4)
    contrastive, both = ts.losses.ProbabilisticContrastive(), ts.losses.Harnessed()

    def laws():
        out = [head(x) for head, x in zip(heads, inputs, strict=True)]
        mu, kappa = ([nn.functional.normalize(o[:, :D], dim=-1) for o in out], [64 + 64 * o[:, D].sigmoid() for o in out])
        return {str(i): ts.VonMisesFisher(*law) for i, law in enumerate(zip(mu, kappa, strict=True))}

    def step(loss):
        optimiser.zero_grad()
        loss(laws())[0].backward()
        optimiser.step()

    upstream = torch.randn(BATCH, D), torch.randn(BATCH)

    def heads_alone():
        optimiser.zero_grad()
        outputs = [x for law in laws().values() for x in (law.loc, law.concentration)]
        torch.autograd.backward(outputs, [*upstream] * S)
        optimiser.step()

    mu = torch.stack([law.loc for law in laws().values()]).detach().requires_grad_()
    kappa = torch.stack([law.concentration for law in laws().values()]).detach().requires_grad_()
    z = ts.vmf_sample(mu, kappa, L).detach().requires_grad_()
    G, pairs = torch.randn_like(z), [(0, 1), (0, 2), (1, 2)]
    frames = ts.great_circles(P, D)
    flat = frames.permute(1, 2, 0).reshape(D, -1)

    def sliced():
        torch.autograd.grad(ts.sliced_wasserstein_sphere_pairs(z, pairs, projections=frames).sum(), z)

    def products():
        xy = z.reshape(-1, D) @ flat
        torch.autograd.grad(xy.sum(), z)

    rows = [
        ("heads and optimiser alone", median_ms(heads_alone)),
        ("vMF draws, forward + backward", median_ms(lambda: torch.autograd.grad(ts.vmf_sample(mu, kappa, L), (mu, kappa), G))),
        ("random great circles", median_ms(lambda: ts.great_circles(P, D))),
        ("L_S on given draws and circles, forward + backward", median_ms(sliced)),
        ("of these, its two matrix products", median_ms(products)),
        ("whole step with L_C", median_ms(lambda: step(contrastive))),
        ("whole step with L_C + L_S", median_ms(lambda: step(both))),
    ]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    lines = [
        "# One training step of the demo, by part",
        "",
        f"{BATCH} items of {S} modalities, d = {D}, {L} draws a distribution, {P} circles, float32. Medians of {ROUNDS} in one run.",
        f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, transphere {ts.__version__} at {commit}.",
        "",
        "| part | ms |",
        "|---|---|",
        *(f"| {name} | {ms:.1f} |" for name, ms in rows),
    ]
    path = Path(__file__).parent / "results" / "loss_step.md"
    path.write_text("\n".join(lines) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
