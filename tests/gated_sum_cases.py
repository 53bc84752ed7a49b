"""Sizes that the gated sum is tried with, and how far the kernels may be from the readable operator."""

import torch
from operator_cases import assert_close, cast, derivatives, gated_function

from spherenet_fast.ops import reference

# Both compute in the same precision from the same numbers. A double backward sums some thousand products in float64,
# each off by 1e-16, and directions close to an axis (|p| of 0.04 and more here) divide by |p|^3.
FLOAT64 = 1e-11
# float32 rounds to 6e-8; the same sums and divisions leave some 1e-6.
FLOAT32 = 1e-5
TOLERANCES = [(torch.float64, FLOAT64), (torch.float32, FLOAT32)]

# Every size of the kernels' registers exactly, one below, one above, and a single one.
SHAPES = [
    dict(num_spherical=7, num_radial=6, channels=64, angle_size=8, torsion_size=8),
    dict(num_spherical=3, num_radial=6, channels=64, angle_size=8, torsion_size=8),
    dict(num_spherical=1, num_radial=1, channels=1, angle_size=1, torsion_size=1),
    dict(num_spherical=1, num_radial=16, channels=70, angle_size=17, torsion_size=3),
    dict(num_spherical=2, num_radial=4, channels=20, angle_size=3, torsion_size=9),
    dict(num_spherical=2, num_radial=16, channels=1, angle_size=9, torsion_size=8),
    dict(num_spherical=3, num_radial=1, channels=70, angle_size=8, torsion_size=17),
    dict(num_spherical=7, num_radial=1, channels=20, angle_size=17, torsion_size=1),
    dict(num_spherical=8, num_radial=4, channels=20, angle_size=1, torsion_size=8),
    dict(num_spherical=8, num_radial=16, channels=64, angle_size=8, torsion_size=9),
]
GATES = [dict(), dict(use_torsion=False), dict(use_torsion=False, use_angle=False)]


def compare(operators, vec, graph, inputs, basis, dtype, tolerance, angle_at="sender"):
    """Kernels in dtype against the reference in float64, on the same numbers: values and both derivatives."""
    inputs = cast(inputs, dtype)
    found = derivatives(gated_function(operators, vec, graph, basis, angle_at), inputs)
    assert all(tensor.dtype == dtype for tensor in found.values())
    expected = derivatives(gated_function(reference, vec, graph, basis, angle_at), cast(inputs, torch.float64))
    assert_close(found, expected, tolerance)
