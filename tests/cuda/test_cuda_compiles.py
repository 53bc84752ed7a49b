"""Every CUDA kernel compiles for the four architectures of the build; ptxas says that nothing leaves the registers."""

import re

import ptxas
import pytest

pytestmark = pytest.mark.skipif(ptxas.nvcc() is None, reason="no CUDA toolkit with nvcc on this machine")


def may_use_memory(name):
    """float64 and the second derivative serve accuracy and training; the rest has to be fast."""
    return "double" in name or "(Pass)2" in name


# The usual kernels in float32: the table in docs/kernels.md. More would leave fewer warps to an SM, or move to memory.
MOST_REGISTERS = {
    "gated_sum_forward_kernel<float, false, (Expansion)0>": 128,
    "gated_sum_backward_kernel<float, false, false>": 255,
    "smooth_torsion_kernel<float, (Pass)0>": 64,
    "smooth_torsion_kernel<float, (Pass)1>": 80,
    "radial_basis_kernel<float, (Pass)0>": 40,
    "radial_basis_kernel<float, (Pass)1>": 48,
}


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
    kept = [kernel for kernel in kernels if kernel.name in MOST_REGISTERS]
    assert len({kernel.name for kernel in kept}) == sum(source.stem in name for name in MOST_REGISTERS)
    assert all(kernel.registers <= MOST_REGISTERS[kernel.name] for kernel in kept), "\n".join(map(str, kept))


def test_the_radial_basis_of_floats_computes_in_float():
    """Some GPUs take 64 times as long for doubles. Taking a root apart, once a block, has the one subtraction."""
    kernels = ptxas.assembly(ptxas.ROOT / "csrc/cuda/radial_basis.cu", 80).split(".entry")[1:]
    names = [re.search(r"(radial_basis|grad_frequency)_kernelI[fd]", kernel)[0] for kernel in kernels]
    doubles = [
        len(re.findall(r"\b(?:add|sub|mul|fma|div|rcp|r?sqrt|neg|abs|min|max|setp)\S*\.f64", kernel))
        for kernel in kernels
    ]
    found = {name: {count for other, count in zip(names, doubles, strict=True) if other == name} for name in names}
    assert found["radial_basis_kernelIf"] == {1} and found["grad_frequency_kernelIf"] == {0}
    assert min(found["radial_basis_kernelId"]) > 100  # what is counted is found
