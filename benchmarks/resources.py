"""What every GPU kernel takes: registers, shared memory, spills, stack, for sm_80 and sm_90, compiled ahead of time where there is no GPU.

    python benchmarks/resources.py            compare with benchmarks/results/resources.md; fails on a spill, a stack or a stale table, with
                                              other compilers than the table's on what does not compile
    python benchmarks/resources.py --write    write the table

Triton's kernels are found by running the launchers on meta tensors and recording what they would have launched, so that what is compiled
here is what runs. CUDA's are all entry functions of csrc/cuda, as ptxas reports them where there is an nvcc; elsewhere their rows stay.
"""

import argparse
import importlib
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path

CSRC = Path(__file__).parent.parent / "csrc"
RESULTS = Path(__file__).parent / "results" / "resources.md"
ARCHS = (80, 90)
# Kernels that may spill or keep a stack, by a pattern of their names, each with the reason.
ALLOWED = {
    r"sinkhorn\.forward\[float32, PARTIAL=False.*I=32": "24 bytes, on sm_80, in the portable form",
    r"sinkhorn\.cu:(together<Solve|(alone|clustered)<Solve<double>)": "spills at most 148 bytes: Newton's method beside the pass",
    r"circular_wasserstein\.forward\[.*WEIGHTED=True, INDEX_BITS=12": "8 points a thread, in the 128 registers that 512 threads leave each",
    r"circular_wasserstein_power\.forward\[float64, ORDER=1.5, WEIGHTED=True": "8 bytes across the calls of exp and log, none spilled",
}


@dataclass(frozen=True, order=True)
class Usage:
    kernel: str
    arch: int
    registers: int
    shared: int  # bytes, static and dynamic where known
    spills: int  # bytes stored
    stack: int  # bytes


def from_ptxas(log: str) -> list[Usage]:
    """The kernels of a log of `nvcc -Xptxas -v`; the names demangled where c++filt is there."""
    found = []
    for name, arch, body in re.findall(r"Compiling entry function '(\S+)' for 'sm_(\d+)a?'(.*?)(?=Compiling entry function|\Z)", log, re.S):
        number = lambda pattern, body=body: int((re.search(pattern, body) or [0, 0])[1])  # noqa: E731
        shared = number(r"(\d+) bytes smem")
        usage = number(r"Used (\d+) registers"), shared, number(r"(\d+) bytes spill stores"), number(r"(\d+) bytes stack frame")
        found.append(Usage(_demangled(name), int(arch), *usage))
    return found


def nvcc() -> str | None:
    return shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def compile_cuda(source: Path) -> list[Usage]:
    """All kernels of a .cu file, with the flags of setup.py that matter to ptxas; named file.cu:kernel<types>."""
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in ARCHS]
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc(), "-std=c++17", "-O3", "-lineinfo", "--expt-relaxed-constexpr", f"-I{CSRC}", "-Xptxas", "-v", *targets]
        log = subprocess.run([*command, "-c", str(source), "-o", f"{folder}/x.o"], capture_output=True, text=True, check=True).stderr
    plain = lambda name: re.sub(r"\(anonymous namespace\)::|_GLOBAL__N__\w+::|transphere::|^void ", "", name)  # noqa: E731
    return [replace(u, kernel=f"{source.name}:{plain(u.kernel)}") for u in from_ptxas(log)]


def _demangled(name: str) -> str:
    try:
        return subprocess.run(["c++filt", "-p", name], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return name


def failures(usages: list[Usage]) -> list[str]:
    """What spills or keeps a stack without being allowed to, and permissions that nothing needs."""
    heavy = [u for u in usages if u.spills or u.stack]
    bad = [f"{u.kernel} on sm_{u.arch}: spills {u.spills} bytes, keeps a stack of {u.stack}" for u in heavy if not _reason(u)]
    unused = [p for p in ALLOWED if not any(re.search(p, u.kernel) for u in heavy) and (nvcc() or ".cu:" not in p.replace("\\", ""))]
    return bad + [f"{pattern!r} is allowed to spill and does not" for pattern in unused]


def _reason(usage: Usage) -> str:
    if not (usage.spills or usage.stack):
        return ""
    return next((reason for pattern, reason in ALLOWED.items() if re.search(pattern, usage.kernel)), "")


def table(usages: list[Usage], compilers: str) -> str:
    rows = [f"| `{u.kernel}` | sm_{u.arch} | {u.registers} | {u.shared} | {u.spills} | {u.stack} | {_reason(u)} |" for u in sorted(usages)]
    head = "| kernel | arch | registers | shared memory | spills | stack | reason |\n|---|---|---|---|---|---|---|\n"
    note = f"{compilers}. Bytes, but for the registers of a thread. `make resources` writes this table."
    return "# What the GPU kernels take\n\n" + note + "\n\n" + head + "\n".join(rows) + "\n"


def sample_calls() -> None:
    """Every launcher at representative shapes, in both dtypes."""
    import torch

    from transphere.kernels.circular_projection import circular_projection, circular_projection_backward
    from transphere.kernels.circular_wasserstein import circular_wasserstein
    from transphere.kernels.circular_wasserstein_power import circular_wasserstein_power
    from transphere.kernels.mahalanobis_cost import mahalanobis_cost, mahalanobis_cost_backward
    from transphere.kernels.sinkhorn import sinkhorn, sinkhorn_backward
    from transphere.kernels.sliced_wasserstein import sliced_wasserstein, sliced_wasserstein_backward
    from transphere.kernels.symmetric_part import symmetric_part
    from transphere.kernels.vmf_cumulant import vmf_cumulant
    from transphere.kernels.vmf_sample import vmf_sample, vmf_sample_backward

    for dtype in (torch.float32, torch.float64):
        new = lambda *shape, dtype=dtype: torch.empty(*shape, dtype=dtype, device="meta")  # noqa: E731
        seed = torch.empty(2, dtype=torch.int64, device="meta")
        circular_projection(new(64, 200))
        circular_projection_backward(new(64, 100), new(64, 200))
        for squared in (False, True):
            mahalanobis_cost(new(2, 512, 1024), None, new(2, 512, 1024), new(2, 256, 256), squared)
            mahalanobis_cost_backward(new(2, 256, 256), new(2, 256, 256), squared)
        symmetric_part(new(1, 1024, 1024))
        for order in range(-1, 5):
            vmf_cumulant(new(64), 512, order)
        for d, storage in (*((d, dtype) for d in (3, 16, 512, 4096)), *([(512, torch.bfloat16)] if dtype == torch.float32 else [])):
            z, w, v = vmf_sample(new(64, d), new(64), seed, 16, False, 0, storage)
            vmf_sample_backward(z, z, w, v, new(64, d), new(64), False)
        vmf_sample_backward(z, z, w, v, new(64, d), new(64), True)
        for n in (16, 32) if dtype == torch.float64 else (16, 32, 256, 2048):  # sorting, the dtype touches only loads and stores
            for weights in ((None, None), (new(64, n), new(64, n))):
                circular_wasserstein(new(64, n, 100), new(64, n, 100), *weights)
        for weights in ((None, None), (new(4, 5000), new(4, 5000))):
            circular_wasserstein(new(4, 5000, 100), new(4, 5000, 100), *weights)
        for n in (16, 32, 64, 128):
            cost, rises = sliced_wasserstein(new(64, n, 200), new(64, n, 200), 0.5)
            sliced_wasserstein_backward(cost, cost, rises, new(64, n, 200), new(64, n, 200), 0.5)
        for n, p in ((16, 1.5), (3000, 1.5)) if dtype == torch.float64 else ((16, 2.0), (1024, 2.0), (3000, 2.0)):
            for weights in ((None, None), (new(64, n), new(64, n))):
                circular_wasserstein_power(new(64, n, 100), new(64, n, 100), *weights, p)
        for n in (32, 256):
            C, a, b, mass = new(8, n, n), new(8, n), new(8, n), new(8)
            for limit, start in ((None, (None, None)), (mass, (a, b))):
                sinkhorn(C, a, b, limit, *start, 0.05, 100, 1e-6)
                sinkhorn_backward(C, C, a, b, limit, a, b, 0.05)


def triton_launches() -> list[tuple]:
    """(kernel, arguments, warps, constants) of the sample calls, each form once."""
    import torch

    files = sorted(path.stem for path in (CSRC.parent / "kernels").glob("*.py"))
    modules = [importlib.import_module(f"transphere.kernels.{name}") for name in files if name not in ("__init__", "_launch")]
    found: dict[str, tuple] = {}

    def record(kernel, programs, *args, num_warps=4, **constants):
        form = _name(kernel, args, constants)
        found.setdefault(form, (kernel, args, num_warps, constants))

    for module in modules:
        if hasattr(module, "launch"):
            module.launch = record
    with torch.device("meta"):
        sample_calls()
    return list(found.values())


def _name(kernel, args, constants) -> str:
    dtype = str(args[0].dtype).removeprefix("torch.")
    blocks = "".join(f", {name}={value}" for name, value in constants.items())
    op = kernel.fn.__module__.split(".")[-1].strip("_").removesuffix("_backward")
    return f"{op}.{kernel.fn.__name__.strip('_')}[{dtype}{blocks}]"


def compile_triton(launch: tuple, arch: int) -> Usage:
    """As the JIT would: aligned pointers, and whole numbers specialised on divisibility by 16 where the kernel lets it."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from transphere.kernels._launch import FP_FUSION

    kernel, args, num_warps, constants = launch
    kinds = {"float32": "*fp32", "float64": "*fp64", "int64": "*i64", "int32": "*i32", "bfloat16": "*bf16", "bool": "*i1", "uint8": "*u8"}
    signature, attrs = {}, {}
    for i, (param, arg) in enumerate(zip(kernel.params, args, strict=False)):
        is_pointer = hasattr(arg, "dtype")
        scalar = "fp32" if isinstance(arg, float) else "i32" if is_pointer or abs(arg) < 2**31 else "i64"
        signature[param.name] = kinds[str(arg.dtype).removeprefix("torch.")] if is_pointer else scalar
        if is_pointer or not (param.do_not_specialize or arg % 16):
            attrs[(i,)] = [["tt.divisibility", 16]]
    signature |= dict.fromkeys(constants, "constexpr")
    options = {"num_warps": num_warps, "enable_fp_fusion": FP_FUSION}
    compiled = triton.compile(ASTSource(kernel, signature, constants, attrs), target=GPUTarget("cuda", arch, 32), options=options)
    shared, name = compiled.metadata.shared, _name(kernel, args, constants)
    registers, stack = _from_cubin(compiled.asm["cubin"])
    return Usage(name, arch, registers, shared, stack and _spills(compiled.asm["ptx"], arch), stack)


def _from_cubin(cubin: bytes) -> tuple[int, int]:
    import triton

    cuobjdump = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        report = subprocess.run([cuobjdump, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", report).groups()
    return int(registers), int(stack)


def _spills(ptx: str, arch: int) -> int:
    from triton.backends.nvidia.compiler import get_ptxas, sm_arch_from_capability

    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [get_ptxas(arch).path, "-v", f"--gpu-name={sm_arch_from_capability(arch)}", file.name, "-o", os.devnull]
        return from_ptxas(subprocess.run(command, capture_output=True, text=True, check=True).stderr)[0].spills


def _compile_numbered(job: tuple[int, int]) -> Usage:
    return compile_triton(LAUNCHES[job[0]], job[1])


LAUNCHES: list[tuple] = []  # filled before the workers fork: kernels do not pickle


def measure() -> Iterator[Usage]:
    LAUNCHES[:] = triton_launches()
    jobs = [(i, arch) for i in range(len(LAUNCHES)) for arch in ARCHS]
    with multiprocessing.get_context("fork").Pool(min(os.cpu_count() or 1, 8)) as pool:
        yield from pool.imap_unordered(_compile_numbered, jobs)
        if nvcc():
            for usages in pool.imap_unordered(compile_cuda, sorted(CSRC.glob("cuda/*.cu"))):
                yield from usages


def stale(usages: list[Usage], text: str, compilers: str) -> list[str]:
    """Rows that the written table lacks or has too many; other figures only where it was written with the same compilers."""
    key = (lambda u: astuple(u)) if compilers in text else (lambda u: (u.kernel, u.arch))  # noqa: E731
    rows = re.findall(r"^\| `(.*)` \| sm_(\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", text, re.M)
    written = {key(Usage(kernel, *map(int, numbers))) for kernel, *numbers in rows if nvcc() or ".cu:" not in kernel}
    return [f"resources.md is stale, run `make resources`: {row}" for row in sorted(written ^ {key(u) for u in usages}, key=str)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the table")
    write = parser.parse_args().write
    import triton

    usages, compilers = list(measure()), f"Triton {triton.__version__}"
    if nvcc():
        version = subprocess.run([nvcc(), "--version"], capture_output=True, text=True).stdout
        compilers += f", nvcc {re.search(r'V([0-9.]+)', version)[1]}"
    problems, text = failures(usages), RESULTS.read_text() if RESULTS.exists() else ""
    if write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(table(usages, compilers))
    elif compilers in text:
        problems += stale(usages, text, compilers)
    else:  # what other compilers than the table's spill is theirs: that all compiles is what counts
        print(f"{compilers}:", *problems, sep="\n")
        problems = stale(usages, text, compilers)
    sys.exit("\n".join(problems) or 0)


if __name__ == "__main__":
    main()
