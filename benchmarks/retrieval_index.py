"""Exact search of a gallery by torch and by FAISS, and the approximate graph: the figures behind training/index.py's constants.

Prints the tables of docs/retrieval.md: `python benchmarks/retrieval_index.py` on a quiet machine, two minutes; takes faiss-cpu.
"""

import statistics
import time
from collections.abc import Callable

import faiss
import torch
from torch.nn.functional import normalize

from transphere.training.index import Index

D, K, THREADS = 512, 26, 2  # dimension, candidates, threads
GALLERIES, QUERIES = (1_000, 10_000, 100_000), (1, 4, 16, 64, 256, 1000)


def median_ms(f: Callable[[], object], rounds: int = 7, budget: float = 1.5) -> float:
    f()
    times, start = [], time.perf_counter()
    while len(times) < 3 or len(times) < rounds and time.perf_counter() - start < budget:
        before = time.perf_counter()
        f()
        times.append(1e3 * (time.perf_counter() - before))
    return statistics.median(times)


def exact(generator: torch.Generator) -> None:
    print(f"| gallery | queries | torch ms | FAISS ms |\n|---:|---:|---:|---:|  d = {D}, {THREADS} threads")
    for n in GALLERIES:
        index = Index(normalize(torch.randn(n, D, generator=generator), dim=1))
        for q in QUERIES:
            x = normalize(torch.randn(q, D, generator=generator), dim=1)
            answers = [index._sorted(x, find(x, K), 10)[1] for find in (index._by_torch, index._by_faiss)]
            if not torch.equal(*answers):
                raise SystemExit(f"{n} points, {q} queries: torch and FAISS give different answers")
            times = [median_ms(lambda find=find, x=x: find(x, K)) for find in (index._by_torch, index._by_faiss)]
            print(f"| {n:,} | {q:,} | {times[0]:.2f} | {times[1]:.2f} |", flush=True)


def graph(generator: torch.Generator, n: int = 20_000, centres: int = 2_000) -> None:
    """Points around centres, as embeddings lie, and queries near points."""
    middle = normalize(torch.randn(centres, D, generator=generator), dim=1)
    points = normalize(middle[torch.randint(centres, (n,), generator=generator)] + 0.03 * torch.randn(n, D, generator=generator), dim=1)
    x = normalize(points[:1000] + 0.03 * torch.randn(1000, D, generator=generator), dim=1)
    start = time.perf_counter()
    index = Index(points, approximate=True)
    built = time.perf_counter() - start
    right, found = Index(points).search(x, 10)[1], index.search(x, 10)[1]
    share = (found[:, :, None] == right[:, None]).any(1).float().mean()
    one = [median_ms(lambda made=made: made.search(x[:1], 10)) for made in (index, Index(points))]
    print(f"graph of {n:,}: built in {built:.1f} s; one query {one[0]:.2f} ms, exactly {one[1]:.2f} ms; finds {100 * share:.1f} %")


def main() -> None:
    torch.set_num_threads(THREADS)
    faiss.omp_set_num_threads(THREADS)
    generator = torch.Generator().manual_seed(0)
    exact(generator)
    graph(generator)


if __name__ == "__main__":
    main()
