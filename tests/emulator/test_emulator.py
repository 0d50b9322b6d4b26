"""The emulator runs CUDA as CUDA runs it: kernels of every kind, each in several orders of its threads, with the same bits."""

import ctypes
import subprocess

import numpy as np
import pytest
import torch
from emulated import ROOT, SEEDS, build, load, nvcc

from transphere.reference.philox import philox

HERE = ROOT / "tests" / "emulator"
TYPES = {"float32": np.float32, "float64": np.float64, "int32": np.int32, "int64": np.int64}


@pytest.fixture(scope="module")
def library(request):
    return load(build([HERE / "correct.cu"], sanitize=request.config.getoption("sanitize")))


@pytest.fixture
def run(library):
    """Calls an entry in every order, on fresh copies of the arrays; returns these, equal bit for bit, as they were after the call."""

    def run(name, *arguments):
        results = []
        for seed in SEEDS:
            library.transphere_emulator_seed(seed)
            copies = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
            error = getattr(library, name)(*(a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray) else a for a in copies))
            assert error == 0, library.transphere_emulator_message()
            results.append([a for a in copies if isinstance(a, np.ndarray)])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                assert a.tobytes() == b.tobytes()
        return results[0]

    return run


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.mark.parametrize("n", [1, 95, 96, 97, 1000])
def test_saxpy(run, random, n):
    x, y = random.normal(size=(2, n)).astype(np.float32)
    result = run("saxpy", ctypes.c_float(2), x, y, n)[1]
    np.testing.assert_allclose(result, 2 * x + y, rtol=1e-6, atol=1e-6)


def test_philox_words(run, random):
    """The words of a CUDA kernel are the reference's, around 2^32 too."""
    edges = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
    rows = np.concatenate([random.integers(0, 2**32, (95, 6), dtype=np.uint32), edges[:, None].repeat(6, 1)])
    words = run("philox_words", rows, np.zeros((len(rows), 4), np.uint32), len(rows))[1]
    k0, k1, *counter = torch.from_numpy(rows.astype(np.int64)).unbind(1)
    np.testing.assert_array_equal(words, torch.stack(philox((k0, k1), *counter), 1).numpy())


BLOCKS = [(1, 1, 1), (3, 1, 1), (31, 1, 1), (32, 1, 1), (33, 1, 1), (7, 5, 3), (64, 2, 1), (1000, 1, 1), (32, 32, 1), (4, 4, 64)]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", TYPES)
def test_reductions_and_scans(run, random, name, block):
    n, dtype = int(np.prod(block)), TYPES[name]
    x = (random.integers(-50, 50, n) if "int" in name else random.normal(size=n)).astype(dtype)
    total, low, high, scan, again = run(f"reduce_{name}", x, np.zeros((5, n), dtype), *block)[1]
    for row in (total, low, high, again):
        assert (row == row[0]).all()
    assert low[0] == x.min() and high[0] == x.max()
    tolerance = 0 if "int" in name else 40 * np.finfo(dtype).eps * n**0.5
    np.testing.assert_allclose(total[0], x.sum(dtype=dtype), atol=tolerance, rtol=0)
    np.testing.assert_allclose(scan, x.cumsum(dtype=dtype), atol=tolerance, rtol=0)
    np.testing.assert_allclose(again[0], scan[-1], atol=tolerance, rtol=0)


@pytest.mark.parametrize("position", [0, 40, 99])
def test_reductions_keep_nan(run, position):
    x = np.arange(100, dtype=np.float32)
    x[position] = np.nan
    result = run("reduce_float32", x, np.zeros((5, 100), np.float32), 100, 1, 1)[1]
    assert np.isnan(result[:3]).all() and np.isnan(result[3, position:]).all() and not np.isnan(result[3, :position]).any()


@pytest.mark.parametrize("width", [1, 2, 4, 8, 16, 32])
def test_shuffles(run, random, width):
    x, i = random.integers(0, 1000, 32).astype(np.int32), np.arange(32)
    index, up, down, xor = run("shuffles", x, np.zeros((4, 32), np.int32), width)[1]
    first = i // width * width
    assert (index == x[first + 3 % width]).all()
    assert (up == x[np.where(i - 2 >= first, i - 2, i)]).all()
    assert (down == x[np.where(i + 2 < first + width, i + 2, i)]).all()
    assert (xor == x[np.where((i ^ 5) < first + width, i ^ 5, i)]).all()


def test_half_warps(run, random):
    x = random.integers(-9, 9, 32).astype(np.float64)
    (_, out) = run("half_warps", x, np.zeros(32))
    assert (out[1::2] == x[1::2].sum()).all() and (out[::2] == x[::2].max()).all()


def test_votes(run, random):
    x = random.integers(-9, 9, 32).astype(np.int32)
    ballot, some, every, add, low, high, xor, match, active = run("votes", x, np.zeros((9, 32), np.int32))[1]
    bits = lambda hits: int(np.sum((1 << np.arange(32, dtype=np.uint64))[hits]))  # noqa: E731
    assert (ballot.view(np.uint32) == bits(x > 0)).all() and (some == (x == 7).any()).all() and (every == 1).all()
    assert (add == x.sum()).all() and (low == x.min()).all() and (high == x.max()).all() and (xor == np.bitwise_xor.reduce(x)).all()
    assert match.view(np.uint32).tolist() == [bits(x == v) for v in x] and (active == 1).all()


@pytest.mark.parametrize("values", [[1] * 70, [0] * 70, [1] * 69 + [0]])
def test_barrier_votes(run, values):
    x = np.array(values, np.int32)
    count, both, either = run("barrier_votes", x, np.zeros((3, 70), np.int32), 70)[1]
    assert (count == x.sum()).all() and (both == x.all()).all() and (either == x.any()).all()


def test_atomics(run, random):
    x = random.integers(0, 100, 1000).astype(np.int32)
    _, counts, sums, extremes = run("histogram", x, np.zeros(16, np.int32), np.zeros(16, np.float32), np.array([0, 2**63], np.uint64), 1000)
    assert (counts == np.bincount(x % 16, minlength=16)).all() and (sums == np.bincount(x % 16, x, 16)).all()
    assert extremes.tolist() == [x.max(), x.min()]


def test_spinning_on_an_atomic_ends(run):
    lock, counter = run("lock", np.zeros(1, np.int32), np.zeros(1, np.int32))
    assert lock[0] == 0 and counter[0] == 210


@pytest.mark.parametrize("sender, receiver", [(3, 40), (40, 3), (4, 3), (3, 4)])
def test_waiting_for_a_message_ends(run, sender, receiver):
    word = np.zeros(1, np.int32)
    assert run("message", word, word, word, sender, receiver)[2][0] == 5


def test_last_block(run, random):
    x = random.integers(0, 100, 5000).astype(np.float32)
    *_, done, total = run("last_block", x, np.zeros(7, np.float32), np.zeros(1, np.uint32), np.zeros(1, np.float32), 5000)
    assert done[0] == 7 and total[0] == x.sum()


@pytest.mark.parametrize("n", [1, 7, 128, 1000, 20000])
@pytest.mark.parametrize("name", TYPES)
def test_dynamic_shared_memory(run, random, name, n):
    x = random.integers(0, 100, n).astype(TYPES[name])
    assert (run(f"reverse_{name}", x, np.zeros_like(x), n)[1] == x[::-1]).all()  # up to 160000 bytes: more than the default


@pytest.mark.parametrize("rows, cols", [(1, 1), (8, 8), (5, 13), (17, 40)])
def test_two_dimensions(run, random, rows, cols):
    x = random.normal(size=(rows, cols)).astype(np.float32)
    assert (run("transpose", x, np.zeros((cols, rows), np.float32), rows, cols)[1] == x.T).all()


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1, 1), (2, 3, 4, 5, 3, 2), (1, 1, 9, 1, 1, 64), (300, 1, 1, 1, 1000, 1)])
def test_indices(run, shape):
    n = int(np.prod(shape))
    assert (run("indices", np.zeros(n, np.int32), *shape)[0] == np.arange(1, n + 1)).all()


def test_syncwarp(run, random):
    x = random.integers(0, 100, (4, 32)).astype(np.int32)
    assert (run("rotate", x, np.zeros_like(x), 5)[1] == np.roll(x, -5, 1)).all()


@pytest.mark.parametrize("size", [1, 2, 3, 8, 16])
def test_clusters(run, library, random, size):
    library.transphere_emulator_architecture(90)
    x = random.integers(0, 100, (3, size, 40)).astype(np.int32)
    _, out, totals = run("clusters", x, np.zeros_like(x), np.zeros(3, np.int32), size, 3, 5)
    library.transphere_emulator_architecture(80)
    assert (out == np.roll(x, 5, 1)).all() and (totals == x.sum((1, 2))).all()


def test_warps_that_leave_early(run, random):
    x = random.integers(0, 9, 256).astype(np.float32)
    assert (run("odd_warps", x, np.zeros(4, np.float32))[1] == x.reshape(8, 32)[1::2].sum(1)).all()


def test_vector_types(run, random):
    x = random.normal(size=(1000, 4)).astype(np.float32)
    assert (run("copy", x, np.zeros_like(x), 1000)[1] == x).all()


def test_scalar_functions(run, random):
    x = np.concatenate([[0, 1, 2**31, 2**32 - 1], random.integers(0, 2**32, 28)]).astype(np.uint32)
    _, out, reals = run("scalars", x, np.zeros((8, 32), np.uint32), np.zeros((3, 32), np.float32))
    popc, clz, ffs, high, reverse, same, least, popcll = out.astype(object)
    for i, v in enumerate(int(v) for v in x):
        assert popc[i] == bin(v).count("1") and popcll[i] == 2 * popc[i] and clz[i] == 32 - v.bit_length()
        assert ffs[i] == (v & -v).bit_length() and high[i] == v * 0xD2511F53 >> 32 and reverse[i] == int(f"{v:032b}"[::-1], 2)
        assert same[i] == v & 0x3FFFFFFF and least[i] == min(v, 1000)
    f = (x >> 8).astype(np.float32) + np.float32(1)
    np.testing.assert_allclose(reals[0], f.astype(float) ** -0.5, rtol=1e-6)
    angle = np.pi * (f.astype(float) / 4 % 2)
    np.testing.assert_allclose(reals[1:], [np.sin(angle), np.cos(angle)], atol=1e-6)


def test_the_portable_switch():
    """Machines other than x86-64 and aarch64 switch fibers by ucontext."""
    library = load(build([HERE / "correct.cu"], ["-DTS_EMULATOR_UCONTEXT"]))
    x, out = np.arange(100, dtype=np.float32), np.zeros((5, 100), np.float32)
    assert library.reduce_float32(x.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), 100, 1, 1) == 0
    assert (out[0] == 4950).all()


@pytest.mark.skipif(nvcc() is None, reason="no nvcc here")
@pytest.mark.parametrize("source", ["correct.cu", "broken.cu"])
def test_the_kernels_are_cuda(tmp_path, source):
    """What the emulator runs, nvcc compiles."""
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in (80, 90)]
    command = [nvcc(), "-std=c++17", "--expt-relaxed-constexpr", *targets, f"-I{ROOT / 'csrc'}"]
    result = subprocess.run([*command, "-c", str(HERE / source), "-o", str(tmp_path / "o")], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
