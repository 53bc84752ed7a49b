"""Every CUDA kernel compiles for the four architectures of the build; ptxas says that nothing leaves the registers."""

import ptxas
import pytest

pytestmark = pytest.mark.skipif(ptxas.nvcc() is None, reason="no CUDA toolkit with nvcc on this machine")


def may_use_memory(name):
    """float64 and the second derivative serve accuracy and training; the rest has to be fast."""
    return "double" in name or "(Pass)2" in name


@pytest.mark.parametrize("source", ptxas.SOURCES, ids=lambda source: source.stem)
def test_compiles_without_spills(source):
    kernels = ptxas.report(source)
    for architecture in ptxas.ARCHITECTURES:
        assert any(kernel.architecture == architecture for kernel in kernels)
    assert all("<" in kernel.name for kernel in kernels), "c++filt is needed to tell float from double"
    wrong = [
        kernel
        for kernel in kernels
        if kernel.stack + kernel.spill_stores + kernel.spill_loads > 0 and not may_use_memory(kernel.name)
    ]
    assert not wrong, "\n".join(map(str, wrong))
