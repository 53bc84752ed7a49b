"""The harness that runs CUDA kernels on the CPU: it must see the mistakes that cuda/faults.cpp makes on purpose."""

import pytest
from cuda_harness import HARNESS, build_program, run_program

NO_ERROR = "no error, 0 NaN\n"


@pytest.fixture(scope="module")
def fault(pytestconfig):
    """What happens to a kernel with the named mistake under a sanitizer or none."""
    folder = pytestconfig.cache.mkdir("cuda_harness")
    programs = {}

    def run(name, sanitizer=None):
        if sanitizer not in programs:
            programs[sanitizer] = build_program("faults", [HARNESS / "faults.cpp"], sanitizer, folder)
        return run_program(programs[sanitizer], name)

    return run


@pytest.mark.parametrize("sanitizer", [None, "address", "thread"])
@pytest.mark.parametrize("name", ["none", "none in warps", "no blocks"])
def test_nothing_is_said_of_correct_kernels(fault, name, sanitizer):
    done = fault(name, sanitizer)
    assert (done.returncode, done.stdout, done.stderr) == (0, NO_ERROR, "")


# A launch that cannot end fails and says who waits where, instead of waiting for ever.
@pytest.mark.parametrize("sanitizer", [None, "address", "thread"])
@pytest.mark.parametrize(
    "name, message",
    [
        ("two barriers", "divergent barrier: thread"),
        ("barrier of some", "from thread 0 on at __syncthreads faults.cpp:"),
        ("barrier of some", "; from thread 40 on ended"),
        ("shuffle of some", "at __shfl_xor_sync(ffffffff) faults.cpp:"),
        ("two masks", "at __shfl_xor_sync(7fffffff) faults.cpp:"),
        ("not in its mask", "lane 16 is not in its own mask 0000ffff"),
    ],
)
def test_divergence_is_an_error(fault, name, message, sanitizer):
    done = fault(name, sanitizer)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith(f"spherenet_fast: kernel {name}: ") and message in done.stdout
    assert "left for others" not in done.stdout


@pytest.mark.parametrize(
    "name, cause",
    [
        ("too much shared memory", "expected a GPU with 307200 bytes of shared memory a block, got less; "),
        ("too many blocks", "expected at most 2147483647 x 65535 x 65535 blocks, got 1 x 70000 x 1"),
    ],
)
def test_impossible_launches(fault, name, cause):
    assert fault(name).stdout.startswith(f"spherenet_fast: kernel {name}: {cause}")


def test_uninitialized_shared_memory_is_not_a_number(fault):
    assert fault("uninitialized").stdout == "no error, 64 NaN\n"
    # a thread that runs too early reads what nobody has written yet
    assert fault("missing barrier").stdout == "no error, 32 NaN\n"


@pytest.mark.parametrize("name", ["missing barrier", "missing barrier in warps", "same number by two blocks"])
def test_races_are_seen(fault, name):
    done = fault(name, "thread")
    assert done.returncode != 0 and "WARNING: ThreadSanitizer: data race" in done.stderr
    assert "faults.cpp:" in done.stderr


@pytest.mark.parametrize("name", ["beyond shared memory", "beyond global memory"])
def test_steps_beyond_are_seen(fault, name):
    done = fault(name, "address")
    assert done.returncode != 0 and "ERROR: AddressSanitizer: heap-buffer-overflow" in done.stderr
    assert "faults.cpp:" in done.stderr
