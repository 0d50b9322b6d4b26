"""Circular W1 of the CPU kernel over the sizes and kinds of points at which it takes other ways: networks of 16 rows, of padded powers
of two up to 2048, and the radix sort beyond. The reference, in float64, is the law for costs, slopes and potentials."""

import ctypes
import math

import emulated
import pytest
import torch

SIZES = [(1, 1), (7, 9), (32, 32), (33, 32), (40, 90), (127, 130), (512, 513), (1024, 1024), (1024, 1025), (700, 5000), (4096, 4096)]
KINDS = ["uniform", "concentrated", "wrapped", "duplicates", "all equal", "sorted", "reversed", "near zero"]
# A cost of order 1 rounds to 6e-8 and 1e-16; the weights, of sum 1 up to their rounding, add as much.
ATOL = {torch.float32: 2e-7, torch.float64: 5e-15}


def points(kind, *shape, dtype):
    x = torch.rand(shape, dtype=dtype)
    match kind:
        case "concentrated":
            return 0.3 + 1e-6 * x
        case "wrapped":
            return 5e-3 * x - 2e-3 + torch.randint(-2, 3, shape)
        case "duplicates":
            return (8 * x).round() / 8
        case "all equal":
            return torch.full(shape, 0.7, dtype=dtype)
        case "sorted":
            return x.sort(1).values
        case "reversed":
            return x.sort(1, descending=True).values
        case "near zero":
            return 2**-28 + 1e-4 * x  # below 2^-28 positions are rounded to 2^-52
    return x


def op(backend, *args):
    return getattr(torch.ops.transphere, "circular_wasserstein" + backend)(*args)


def problem(kind, n, m, dtype, weighted, B=2, P=5):
    u, v = (points(kind, B, k, P, dtype=dtype) for k in (n, m))
    if not weighted:
        return u, v, None, None
    a, b = (torch.rand(B, k, dtype=dtype) for k in (n, m))
    if kind not in ("concentrated", "near zero"):  # there the median is the last level, 0 up to rounding: next to it 0 has no sign
        a[:, ::3] = 0
        a[:, -1] += 1
    return u, v, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n, m", SIZES)
def test_equals_reference(n, m, kind, weighted, dtype):
    inputs = problem(kind, n, m, dtype, weighted)
    # Positions are wrapped in their own type.
    exact = [x if x is None else x.double() for x in (*(x - x.floor() for x in inputs[:2]), *inputs[2:])]
    got, expected = op("", *inputs), op("_reference", *exact)
    torch.testing.assert_close(got[0].double(), expected[0], rtol=0, atol=ATOL[dtype])
    # The order of equal points is that of their indices, so slopes agree where points coincide too.
    for g, e in zip(got[1:], expected[1:], strict=True):
        torch.testing.assert_close(g.double(), e, rtol=0, atol=4 * ATOL[dtype])


@pytest.mark.parametrize("n, m", [(31, 33), (60, 90), (1000, 1048), (3000, 2000)])
@pytest.mark.parametrize("weighted", [False, True])
def test_bits_do_not_depend_on_the_batch(n, m, weighted, dtype):
    """Nor on the place in it, on strides, or on threads. P = 5 is no multiple of the columns sorted together."""
    inputs = problem("uniform", n, m, dtype, weighted, B=3, P=5)
    together = op("", *inputs)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        for x, y in zip(together, op("", *inputs), strict=True):
            assert torch.equal(x, y)
    finally:
        torch.set_num_threads(threads)
    for b, p in [(0, 0), (1, 2), (1, 4), (2, 4)]:
        u, v, *weights = inputs
        alone = op("", u[b : b + 1, :, p : p + 1], v[b : b + 1, :, p : p + 1], *(w if w is None else w[b : b + 1] for w in weights))
        for x, y in zip(together, alone, strict=True):
            assert not x.numel() or torch.equal(x[b : b + 1, ..., p : p + 1], y)


@pytest.mark.parametrize("weighted", [False, True])
def test_many_points_shared_by_threads(weighted, dtype):
    u, v, *weights = problem("uniform", 300_000, 299_999, dtype, weighted, B=1, P=1)
    got, expected = op("", u, v, *weights), op("_reference", *(x if x is None else x.double() for x in (u, v, *weights)))
    # Of 600 000 points float32 merges thousands, whose order is the reference's; the reference's own sums round at 1e-12.
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g.double(), e, rtol=0, atol=max(1e-11, ATOL[dtype]))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        three = op("", u, v, *weights)
        torch.set_num_threads(1)
        for x, y, z in zip(got, three, op("", u, v, *weights), strict=True):
            assert torch.equal(x, y) and torch.equal(x, z)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", range(4))
@pytest.mark.parametrize("n", [20, 700, 3000])
def test_not_a_number_stays_in_its_problem(n, where, poison, dtype):
    """In points, and in weights that came past the public function's check."""
    inputs = problem("uniform", n, n, dtype, True, B=3, P=3)
    clean = op("", *inputs)
    inputs[where][1, n // 2] = poison
    for x, y in zip(op("", *inputs), clean, strict=True):
        assert x[1].isnan().all() and torch.equal(x[::2], y[::2])
    inputs = problem("uniform", n, n, dtype, False, B=3, P=3)
    inputs[where % 2][1, n // 2, 1] = poison
    for x in op("", *inputs)[:3]:
        assert x[1, ..., 1].isnan().all() and x.isnan().sum() == x[1, ..., 1].numel()


def test_extreme_levels():
    """Weights over sixty powers of two, for which the search of the median takes its longest way, and one point against many."""
    for n in (60, 3000):
        a = torch.full((1, n), 2.0**-62, dtype=torch.float64)
        a[0, :60] = 2.0 ** -torch.arange(1, 61, dtype=torch.float64)
        u, v = torch.rand(1, n, 4, dtype=torch.float64), torch.rand(1, 1, 4, dtype=torch.float64)
        b = torch.ones(1, 1, dtype=torch.float64)
        torch.testing.assert_close(op("", u, v, a, b)[0], op("_reference", u, v, a, b)[0], rtol=0, atol=1e-14)
        torch.testing.assert_close(op("", u, v, None, None)[0], op("_reference", u, v, None, None)[0], rtol=0, atol=1e-14)


DRIVER = """
#include "cpu/circular_columns.h"
using namespace transphere;
template <int W, typename T>
void solve(const CircularProblems<T>& q, int64_t problems) {
  CircularColumns<T, W> columns(q);
  for (int64_t first = 0; first < problems; first += W) columns.solve(first, std::min<int64_t>(W, problems - first));
}
extern "C" void solve_double(int width, const double* const* in, double* const* out, int64_t n, int64_t m, int64_t P, int64_t problems) {
  const CircularProblems<double> q{in[0], in[1], in[2], in[3], out[0], out[1], out[2], out[3], out[4], n, m, P};
  width == 2 ? solve<2>(q, problems) : width == 4 ? solve<4>(q, problems) : solve<8>(q, problems);
}
"""


@pytest.fixture(scope="module")
def columns_of(tmp_path_factory):
    """The columns' kernel at a width, whatever this machine's own is."""
    folder = tmp_path_factory.mktemp("columns")
    (folder / "columns.cpp").write_text(DRIVER)
    flags = ["-std=c++17", "-O1", "-Wall", "-Wno-psabi", "-shared", "-fPIC", f"-I{emulated.CSRC}"]
    library = ctypes.CDLL(str(emulated._make(folder / "columns.so", [emulated.CXX, *flags, str(folder / "columns.cpp")])))

    def run(width, u, v, a, b):
        out = [torch.full_like(x, math.nan) for x in (u[:, 0], u, v, u, v)]
        pointers = [(ctypes.c_void_p * len(x))(*(t.data_ptr() for t in x)) for x in ([u, v, a, b], out)]
        sizes = (u.shape[1], v.shape[1], u.shape[2], u.shape[0] * u.shape[2])
        library.solve_double(width, *pointers, *map(ctypes.c_int64, sizes))
        return out

    return run


@pytest.mark.parametrize("width", [2, 4, 8])
@pytest.mark.parametrize("n, m", [(1, 1), (16, 16), (33, 40), (500, 513)])
def test_columns_of_every_width(columns_of, width, n, m):
    inputs = problem("uniform", n, m, torch.float64, True, B=3, P=5)
    inputs[0][1, 0, 2] = math.nan
    for got, expected in zip(columns_of(width, *inputs), op("", *inputs), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-15, equal_nan=True)
