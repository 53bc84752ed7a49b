"""Linear layers with and without activation, and the products they are made of, against PyTorch's in float64."""

import itertools

import pytest
import torch
from operator_cases import assert_close, cast, derivatives, strided

from spherenet_fast import ops
from spherenet_fast.ops import reference

# sums of up to 300 products rounded to 6e-8 (float64: 1e-16) each
PRECISIONS = [(torch.float32, 2e-6), (torch.float64, 1e-14)]
# rows, columns of x, columns of the result; those of a model, single ones, none
SIZES = [(500, 128, 128), (500, 384, 128), (500, 6, 8), (20, 256, 1), (300, 1, 64), (1, 1, 1), (7, 5, 3), (0, 4, 2)]


def inputs(rows, width, channels, bias=True):
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (rows, width), "weight": (channels, width), "bias": (channels,)}
    given = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    return given if bias else given | {"bias": None}


@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["linear", "linear_silu"])
def test_every_size(name, size, bias, dtype, tolerance, instruction_set):
    given = cast(inputs(*size, bias), dtype)
    given["weight"] /= size[1] ** 0.5  # so that the activation sees numbers of order 1
    found = derivatives(getattr(ops, name), given)
    assert all(tensor.dtype == dtype for tensor in found.values())
    assert_close(found, derivatives(getattr(reference, name), cast(given, torch.float64)), tolerance)


@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
@pytest.mark.parametrize("size", [*SIZES, (700, 17, 50)])
def test_outer_sum(size, dtype, tolerance, instruction_set):
    rows, width, channels = size
    generator = torch.Generator().manual_seed(0)
    given = {name: torch.randn(rows, n, generator=generator).to(dtype) for name, n in (("a", channels), ("b", width))}
    found = derivatives(ops.outer_sum, given)
    assert_close(found, derivatives(reference.outer_sum, cast(given, torch.float64)), tolerance)


@pytest.mark.parametrize("change", [strided, lambda tensor: tensor.T.contiguous().T])
def test_layout_of_the_numbers(change):
    given = cast(inputs(50, 24, 16, bias=False), torch.float32)
    changed = {name: value if value is None else change(value) for name, value in given.items()}
    # the same products, summed in another order
    assert_close(derivatives(ops.linear, changed), derivatives(ops.linear, given), 2e-6)


@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["linear", "linear_silu"])
def test_several_at_once(name, bias, dtype, tolerance):
    """As a batch of products: every one as it is alone."""
    given = inputs(20, 8, 5, bias)
    several = {
        key: None if value is None else torch.stack([value, value - 1, 2 * value]) for key, value in given.items()
    }

    def one_by_one(*tensors):
        parts = zip(*([None] * 3 if tensor is None else tensor.unbind() for tensor in tensors))
        return torch.stack([getattr(reference, name)(*part) for part in parts])

    assert_close(derivatives(getattr(ops, name), cast(several, dtype)), derivatives(one_by_one, several), tolerance)


def test_part_of_a_weight():
    """The columns of one weight are applied to three inputs."""
    given = cast(inputs(50, 48, 16, bias=False), torch.float32)
    x, weight = given["x"], given["weight"]
    parts = [ops.linear(columns, part) for columns, part in zip(x.chunk(3, 1), weight.chunk(3, 1), strict=True)]
    assert_close({"sum": sum(parts)}, {"sum": reference.linear(x.double(), weight.double())}, 2e-6)


def test_third_derivatives():
    def third(operators, dtype):
        x, weight, _ = cast(inputs(6, 5, 4, bias=False), dtype).values()
        x, weight = x.requires_grad_(), weight.requires_grad_()
        value = operators.linear(x, weight).pow(4).sum()
        for _ in range(3):
            first = torch.autograd.grad(value, [x, weight], create_graph=True)
            value = sum(gradient.square().sum() for gradient in first).sqrt()
        return {"x": first[0].detach(), "weight": first[1].detach()}

    assert_close(third(ops, torch.float32), third(reference, torch.float64), 1e-5)  # some ten products in a row


@pytest.mark.parametrize("function", [ops.linear, ops.linear_silu])
def test_derivatives_by_some_inputs_alone(function):
    given = cast(inputs(9, 8, 7), torch.float32)
    cotangent = torch.randn(9, 7)
    everything = [value.clone().requires_grad_() for value in given.values()]
    expected = torch.autograd.grad(function(*everything), everything, cotangent)
    for wanted in itertools.product([True, False], repeat=3):
        leaves = [value.clone().requires_grad_(yes) for value, yes in zip(given.values(), wanted, strict=True)]
        if any(wanted):
            function(*leaves).backward(cotangent)
        for leaf, yes, exact in zip(leaves, wanted, expected, strict=True):
            assert torch.equal(leaf.grad, exact) if yes else leaf.grad is None


@pytest.mark.parametrize("wanted", list(itertools.product([True, False], repeat=3))[:-1])
def test_second_derivatives_by_some_inputs_alone(wanted):
    """Through the gradient of x, as forces have it, and through those of weight and bias."""
    given = inputs(9, 8, 7)

    def second(operators):
        leaves = [value.clone().requires_grad_() for value in given.values()]
        asked = [leaf for leaf, yes in zip(leaves, wanted, strict=True) if yes]
        value = operators.linear_silu(*leaves).pow(2).sum()
        first = torch.autograd.grad(value, asked, create_graph=True)
        found = torch.autograd.grad(sum(gradient.pow(2).sum() for gradient in first), leaves)
        return dict(zip(given, found, strict=True))

    assert_close(second(ops), second(reference), 1e-13)  # float64, sums of some ten products


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [*SIZES, (9000, 64, 1), (40_000, 2, 1)])
@pytest.mark.parametrize("function", [ops.linear, ops.linear_silu])
def test_the_same_bits_with_any_number_of_threads(function, size, dtype, set_threads):
    given = cast(inputs(*size), dtype)
    set_threads(1)
    expected = derivatives(function, given)
    for threads in (1, 2, 3):
        set_threads(threads)
        found = derivatives(function, given)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_autocast():
    given = cast(inputs(9, 8, 7), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert ops.linear(*given.values()).dtype == torch.bfloat16  # a matrix product is what autocast is for
        assert ops.linear_silu(*given.values()).dtype == torch.float32  # and the activation runs in float32


def test_errors_of_outer_sum():
    with pytest.raises(RuntimeError, match=r"b: expected shape \[4, any\], got \[3, 2\]"):
        ops.outer_sum(torch.ones(4, 2), torch.ones(3, 2))


def test_errors_of_linear():
    for function in (ops.linear, ops.linear_silu):
        with pytest.raises(RuntimeError, match=r"weight: expected shape \[any, 2\], got \[3, 4\]"):
            function(torch.ones(4, 2), torch.ones(3, 4))
        with pytest.raises(RuntimeError, match=r"bias: expected shape \[3\], got \[2\]"):
            function(torch.ones(4, 2), torch.ones(3, 2), torch.ones(2))
