"""Messages times a linear function of the distance basis, against its reference in float64."""

import itertools

import pytest
import torch
from operator_cases import assert_close, cast, derivatives, strided

from spherenet_fast import ops
from spherenet_fast.ops import reference

# sums of up to 300 products rounded to 1e-16 or 6e-8 each
PRECISIONS = [(torch.float64, 1e-14), (torch.float32, 2e-6)]
# edges, channels, radial functions; those of a model, single ones, none, the most
SIZES = [(300, 128, 6), (1, 1, 1), (7, 5, 3), (129, 70, 6), (0, 8, 2), (9, 33, 16)]


def inputs(edges, channels, num_radial):
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (edges, channels), "bessel": (edges, num_radial), "weight": (channels, num_radial)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
@pytest.mark.parametrize("size", SIZES)
def test_every_size(size, dtype, tolerance, instruction_set):
    given = cast(inputs(*size), dtype)
    found = derivatives(ops.radial_filter, given)
    assert all(tensor.dtype == dtype for tensor in found.values())
    assert_close(found, derivatives(reference.radial_filter, cast(given, torch.float64)), tolerance)


def test_strided_inputs():
    given = inputs(9, 7, 5)
    expected = derivatives(ops.radial_filter, given)
    found = derivatives(ops.radial_filter, {name: strided(value) for name, value in given.items()})
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_derivatives_by_some_inputs_alone():
    """First and second derivatives are the same numbers whoever else is asked for."""
    given = inputs(9, 8, 7)
    cotangent = torch.randn(9, 8).double()

    def both(wanted):
        leaves = [value.clone().requires_grad_(yes) for value, yes in zip(given.values(), wanted, strict=True)]
        asked = [leaf for leaf in leaves if leaf.requires_grad]
        first = torch.autograd.grad(ops.radial_filter(*leaves), asked, cotangent, create_graph=True)
        loss = sum(gradient.square().sum() for gradient in first)
        second = torch.autograd.grad(loss, asked, allow_unused=True, materialize_grads=True)
        return dict(zip((name for name, yes in zip(given, wanted, strict=True) if yes), zip(first, second)))

    expected = both((True, True, True))
    for wanted in itertools.product([True, False], repeat=3):
        if any(wanted):
            for name, (first, _) in both(wanted).items():
                assert torch.equal(first, expected[name][0])
    # each alone: its second derivative is that of the reference
    for name in given:
        leaf = given[name].clone().requires_grad_()
        loss = 0
        for operators in (ops, reference):
            value = operators.radial_filter(*(given | {name: leaf}).values())
            (first,) = torch.autograd.grad(value.pow(2).sum(), leaf, create_graph=True)
            (second,) = torch.autograd.grad(first.square().sum(), leaf)
            loss = loss - second if operators is ops else loss + second
        assert loss.abs().max() < 1e-10 * second.abs().max()  # float64, some ten roundings


# as for the other CUDA kernels: sums in orders of their own
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 1e-5)])
@pytest.mark.parametrize("size", [(70, 128, 6), (33, 130, 3), (1, 1, 1), (0, 8, 2), (32, 64, 16), (5, 65, 9)])
def test_cuda_kernel(cuda_operators, size, dtype, tolerance):
    given = cast(inputs(*size), dtype)
    found = derivatives(cuda_operators.radial_filter, given)
    assert_close(found, derivatives(reference.radial_filter, cast(given, torch.float64)), tolerance)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(bessel=torch.ones(3, 2)), r"bessel: expected shape \[4, any\], got \[3, 2\]"),
        (dict(weight=torch.ones(2, 2)), r"weight: expected shape \[3, 2\], got \[2, 2\]"),
        (dict(bessel=torch.ones(4, 17)), "bessel: expected 1 .. 16 radial functions, got 17"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(RuntimeError, match=message):
        ops.radial_filter(**dict(x=torch.ones(4, 3), bessel=torch.ones(4, 2), weight=torch.ones(3, 2)) | changes)
