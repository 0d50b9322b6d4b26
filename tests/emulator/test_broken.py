"""What is wrong with a kernel is said, or seen: each kernel here is broken in one way, and the emulator finds it."""

import ctypes
import re
import subprocess
import sys

import numpy as np
import pytest
from emulated import ROOT, SEEDS, build, load, sanitizer_environment

SOURCE = ROOT / "tests" / "emulator" / "broken.cu"
INVALID, CONFIGURATION, ADDRESS, ASSERT, MISALIGNED, LAUNCH, CLUSTER_SIZE = 1, 9, 700, 710, 716, 719, 912


@pytest.fixture(autouse=True, scope="module")
def _not_twice(request):
    if request.config.getoption("sanitize"):
        pytest.skip("the sanitizers end the process at the first error")


@pytest.fixture(scope="module")
def library():
    return load(build([SOURCE]))


@pytest.fixture
def call(library):
    def call(name, *arguments, seed=2):
        library.transphere_emulator_seed(seed)
        error = getattr(library, name)(*(a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray) else a for a in arguments))
        return error, library.transphere_emulator_message().decode() if error else ""

    return call


def out(dtype=np.int32, n=128):
    return np.full(n, 7, dtype)


DIVERGENT = {
    "barrier_after_exit": ((), r"40 \(first .*\) wait at __syncthreads \(.*broken.cu:\d+\).*24 \(first .*\) exited"),
    "two_barriers": ((out(),), r"32 \(first .*\) wait at __syncthreads \(.*:\d+\), 32 \(first .*\) wait at __syncthreads \(.*:\d+\)"),
    "barrier_and_warp": ((), r"33 .* wait at __syncthreads .* 31 .* wait at __syncwarp with mask 0xffffffff"),
    "not_in_mask": ((out(),), r"lane \d+ calls a shuffle with mask 0x0000ffff, which leaves it out"),
    "exited_lane": ((out(),), r"__ballot_sync with mask 0xffffffff names lane 5, which has exited|31 .* wait at __ballot_sync.* exited"),
    "absent_lane": ((out(),), r"__any_sync with mask 0xffffffff in a warp of 16 lanes"),
    "missing_lane": ((out(),), r"with mask 0xffffffff names lane 9, which has exited|31 .* wait at a shuffle.*\(9, 0, 0\)\) exited"),
    "different_primitives": ((out(),), r"16 .* wait at a shuffle with mask .*, 16 .* wait at a shuffle with mask"),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", DIVERGENT)
def test_divergence(call, name, seed):
    arguments, message = DIVERGENT[name]
    error, text = call(name, *arguments, seed=seed)
    assert error == LAUNCH
    assert re.search(message, text), text
    assert f"of block (0, 0, 0) of {name}_kernel" in text or f"in block (0, 0, 0) of {name}_kernel" in text


def test_width(call):
    error, text = call("width", out())
    assert error == INVALID and "shuffle of width 12, not a power of two" in text


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("read, write", [(36, 0), (0, 36), (0, 1000), (5000, 0), (-1024, 0), (0, -1024)])
def test_outside_dynamic_shared_memory(call, read, write, seed):
    error, text = call("dynamic", out(np.float32), read, write, seed=seed)
    assert error == ADDRESS and f"outside dynamic shared memory, at byte {4 * (read or write)} of 132, in thread (" in text


@pytest.mark.parametrize("write", [33, 35, -1, -4])
def test_write_beside_dynamic_shared_memory(call, write):
    """Too near to fault: the pattern there is checked when the block ends."""
    error, text = call("dynamic", out(np.float32), 0, write)
    assert error == ADDRESS and "a write beside the 132 bytes of dynamic shared memory" in text


def test_inside_dynamic_shared_memory(call):
    result = out(np.float32)
    assert call("dynamic", result, 32, 0) == (0, "") and (result[:33] == 2).all()


def test_unwritten_shared_memory_is_garbage(call):
    """NaN as a float, huge as an integer, and another one in each order."""
    seen = set()
    for seed in SEEDS:
        floats, integers = out(np.float32), out()
        assert call("unwritten", floats, integers, seed=seed)[0] == 0
        assert floats[0] == floats[64] == 1 and np.isnan(floats[1:64]).all() and np.isnan(floats[65:]).all()
        assert integers[0] == 1 and (integers[1:64] > 2**30).all()
        seen.add(integers.tobytes())
    assert len(seen) > 1


def test_a_lane_that_takes_no_part_gives_garbage(call):
    result = out(np.float32)
    assert call("outside_lane", result)[0] == 0 and np.isnan(result[:16]).all()


RACES = {
    "missing_barrier": "4 bytes of shared memory",
    "missing_second_barrier": "4 bytes of shared memory",
    "missing_syncwarp": "4 bytes of shared memory",
    "plain_counter": "4 bytes of shared memory",
    "shuffle_for_barrier": "4 bytes of shared memory",
    "blocks": r"write of 4 bytes of global memory at .* write by a thread of another block",
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", RACES)
def test_races_are_found_in_any_order(call, name, seed):
    error, text = call(name, np.arange(128, dtype=np.int32), out(), seed=seed)
    assert error == LAUNCH and re.search(RACES[name], text) and len(re.findall(r"broken\.cu:\d+", text)) == 2, text


@pytest.fixture
def hopper(library):
    library.transphere_emulator_architecture(90)
    yield
    library.transphere_emulator_architecture(80)


CLUSTERS = {  # in the order of the kernel's numbers
    "nothing": None,
    "block_leaves_out_a_barrier": r"64 .* wait at a barrier of the cluster \(.*cluster.cuh.*\), while block \(1, 0, 0\) .* has exited",
    "warp_leaves_out_a_barrier": r"32 .* wait at a barrier of the cluster .*32 .*exited|64 .* wait at a barrier of the cluster",
    "no_barrier_between": r"race: .* of 4 bytes of shared memory .* unordered with a (read|write) by a thread of another block",
    "no_barrier_before": r"access to the shared memory of block \([01], 0, 0\) at .*broken.cu:\d+, which may not have started",
    "no_barrier_after": r"the block ends, .*, with no barrier of the cluster after an access by block|access to .* which has exited",
    "written_after_arriving": r"race: .* of 4 bytes of shared memory .* unordered with a (read|write) by a thread of another block",
    "read_before_waiting": r"race: .* of 4 bytes of shared memory .* unordered with a (read|write) by a thread of another block",
    "arrives_twice": "arrives at a barrier of the cluster again without having waited",
    "waits_first": "waits for a barrier of the cluster without having arrived",
    "rank_too_high": "rank 2 in a cluster of 2",
    "address_not_shared": "a mapped address is none of this block's dynamic shared memory",
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("wrong", CLUSTERS)
def test_clusters(call, hopper, wrong, seed):
    result = out()
    error, text = call("cluster", result, list(CLUSTERS).index(wrong), 0, seed=seed)
    if CLUSTERS[wrong] is None:
        assert (error, text) == (0, "") and (result == 3).all()
    else:
        assert error in (LAUNCH, INVALID, ADDRESS) and re.search(CLUSTERS[wrong], text) and "of cluster_kernel" in text, text


@pytest.mark.parametrize("at", [64, -2000, 5000])
def test_outside_the_shared_memory_of_another_block(call, hopper, at):
    error, text = call("cluster", out(), 0, at)
    assert error == ADDRESS and "outside dynamic shared memory of another block" in text


def test_clusters_that_cannot_be(call, library):
    assert call("clusters", 2, 4)[0] == CLUSTER_SIZE  # on sm_80
    error, text = call("cluster_barrier_in_no_cluster")
    assert error == LAUNCH and "in a launch without clusters" in text
    library.transphere_emulator_architecture(90)
    for size, blocks, error in [(2, 4, 0), (8, 8, 0), (16, 32, 0), (17, 17, CLUSTER_SIZE), (2, 3, CLUSTER_SIZE)]:
        assert call("clusters", size, blocks)[0] == error
    library.transphere_emulator_architecture(80)


@pytest.fixture
def unchecked(library):
    library.transphere_emulator_races(0)
    yield
    library.transphere_emulator_races(1)


@pytest.mark.parametrize("name", ["missing_barrier", "missing_second_barrier", "missing_syncwarp"])
def test_races_change_with_the_order(call, unchecked, name):
    """Also where races are not looked for: other bits in another order."""
    x, results = np.arange(128, dtype=np.int32), set()
    for seed in SEEDS:
        result = np.zeros(128, np.int32)
        assert call(name, x, result, seed=seed)[0] == 0
        results.add(result.tobytes())
    assert len(results) > 2


def test_an_update_that_is_not_atomic_is_seen(call, unchecked):
    results = set()
    for seed in range(20):
        counter = np.zeros(2, np.int32)
        call("lost_update", counter, seed=seed)
        results.add(int(counter[0]))
    assert len(results) > 1


@pytest.mark.parametrize(
    "name, arguments, error, message",
    [
        ("null", (None, out()), ADDRESS, "illegal or misaligned memory access"),
        ("deep_stack", (out(),), LAUNCH, "the stack of a thread is full"),
        ("divide", (np.arange(32, dtype=np.int32),), LAUNCH, "integer division by zero"),
        ("trap", (17,), ASSERT, r"__trap was called, in thread (17, 0, 0) of block ("),
    ],
)
def test_faults(call, name, arguments, error, message):
    for _ in range(3):  # the emulator survives
        code, text = call(name, *arguments)
        assert code == error and message in text


@pytest.mark.parametrize("read, write", [(0, 0), (1, 0), (2, 0), (0, 3)])
def test_words_lie_at_multiples_of_their_size(call, read, write):
    """Also where the host's processor would not mind."""
    arrays = [np.zeros(16, np.int32) for _ in range(2)]
    first = [-(a.ctypes.data // 4) % 4 for a in arrays]
    code, text = call("misaligned", *(a[i:] for a, i in zip(arrays, first, strict=True)), read, write)
    assert code == (MISALIGNED if read or write else 0)
    assert not code or "access of " in text and "not a multiple of that" in text


@pytest.mark.parametrize(
    "grid, block, shared, error",
    [
        ((0, 1, 1), (32, 1, 1), 0, CONFIGURATION),
        ((1, 0, 1), (32, 1, 1), 0, CONFIGURATION),
        ((1, 65536, 1), (32, 1, 1), 0, CONFIGURATION),
        ((1, 1, 65536), (32, 1, 1), 0, CONFIGURATION),
        ((-1, 1, 1), (32, 1, 1), 0, CONFIGURATION),
        ((1, 1, 1), (0, 1, 1), 0, CONFIGURATION),
        ((1, 1, 1), (1025, 1, 1), 0, CONFIGURATION),
        ((1, 1, 1), (33, 32, 1), 0, CONFIGURATION),
        ((1, 1, 1), (1, 1, 65), 0, CONFIGURATION),
        ((1, 1, 1), (32, 1, 1), 163 * 1024 + 1, INVALID),
        ((1, 1, 1), (32, 1, 1), 227 * 1024, INVALID),
    ],
)
def test_launches_that_cannot_be(call, library, grid, block, shared, error):
    code, text = call("dimensions", *grid, *block, shared)
    assert code == error and ("nothing_kernel" in text or "sm_80 has" in text)
    assert library.last_error() == 0  # reported once


def test_launches_that_can_be(call, library):
    for arguments in [(1, 1, 1, 32, 32, 1, 163 * 1024), (1, 1, 1, 1024, 1, 1, 0), (2, 2, 2, 4, 4, 64, 100)]:
        assert call("dimensions", *arguments) == (0, "")
    library.transphere_emulator_architecture(90)
    assert call("dimensions", 1, 1, 1, 32, 1, 1, 227 * 1024) == (0, "")
    library.transphere_emulator_architecture(80)


@pytest.mark.parametrize(
    "entry, arguments, report",
    [
        ("dynamic", "out, 33, 0", "heap-buffer-overflow"),
        ("dynamic", "out, 0, -1", "heap-buffer-overflow"),
        ("static_read", "out, 32", "global-buffer-overflow|insufficient space for an object"),
        ("static_read", "out, -1", "global-buffer-overflow"),
    ],
)
def test_the_sanitizer_sees_shared_memory(entry, arguments, report):
    """Reads right beside an array, dynamic or static, to which the plain build is blind."""
    code = f"import ctypes; out = (ctypes.c_float * 128)(); ctypes.CDLL({str(build([SOURCE], sanitize=True))!r}).{entry}({arguments})"
    result = subprocess.run([sys.executable, "-c", code], env=sanitizer_environment(), capture_output=True, text=True)
    assert result.returncode != 0 and re.search(report, result.stderr) and f"{entry.split('_')[0]}_kernel" in result.stderr
