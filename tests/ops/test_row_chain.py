"""Chains of layers over rows as one operator, against the layers one after the other in float64."""

import itertools

import pytest
import torch
from operator_cases import assert_close, cast, derivatives

from spherenet_fast import ops
from spherenet_fast.ops import reference
from spherenet_fast.ops.product import by_inner

# ten layers, each a sum of some twenty products rounded to 6e-8 (float64: 1e-16), and as much again for each derivative
PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-13)]
WIDTH, NARROW, RADIAL = 21, 6, 3  # not multiples of any register
LAYERS = "abcd"


def inputs(rows, dtype=torch.float64, width=WIDTH):
    """Three tensors of rows, then weights and biases."""
    generator = torch.Generator().manual_seed(rows)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    given = {"x": normal(rows, width), "y": normal(rows, width), "bessel": normal(rows, RADIAL)}
    for name in LAYERS:
        given |= {name: normal(width, width) / width**0.5, f"{name}_bias": normal(width)}
    return given | {"down": normal(NARROW, width) / 5, "up": normal(width, NARROW) / 2, "radial": normal(width, RADIAL)}


def interaction(operators, recompute=False):
    """Everything that a chain may contain: sums, residuals, products, layers with and without activation and bias."""

    def run(x, y, bessel, a, a_bias, b, b_bias, c, c_bias, d, d_bias, down, up, radial):
        def chain(x, y, bessel):
            h = operators.linear_silu(x, a, a_bias) + y
            filtered = operators.radial_filter(operators.linear_silu(h, b, b_bias), bessel, radial)
            narrow = operators.linear_silu(filtered, down)
            h = h + operators.linear_silu(operators.linear(narrow, up), c, c_bias)
            h = operators.linear(h, d, d_bias) + h
            return narrow, h, operators.radial_filter(h, bessel, radial)

        return operators.row_chain(chain, x, y, bessel, recompute=recompute)

    return run


@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
@pytest.mark.parametrize("rows", [0, 1, 7, 130, 2000])  # one tile and less, some, those of several parts
def test_values_and_derivatives(rows, dtype, tolerance, instruction_set):
    given = inputs(rows, dtype)
    found = derivatives(interaction(ops), given)
    assert all(tensor.dtype == dtype for tensor in found.values())
    assert_close(found, derivatives(interaction(reference), cast(given, torch.float64)), tolerance)


def assert_found_again(given):
    """The same bits of values and first derivatives, whether or not h is stored."""
    leaves = [value.requires_grad_() for value in given.values()]
    stored, found = [], []
    for results, recompute in ((stored, False), (found, True)):
        values = interaction(ops, recompute)(**given)
        results += [*values, *torch.autograd.grad(sum(value.sin().sum() for value in values), leaves)]
    assert all(map(torch.equal, found, stored))


def test_what_is_found_again_is_what_would_have_been_stored():
    """The same bits of values and first derivatives. Second derivatives go through the layers one after the other."""
    assert_found_again(inputs(300, torch.float32))
    given = inputs(40)
    # float64: 1e-13, as everywhere in this file
    assert_close(derivatives(interaction(ops, True), given), derivatives(interaction(reference), given), 1e-13)


def test_nothing_is_stored_but_rows_and_results_where_the_rest_is_found_again():
    given = {name: value.requires_grad_() for name, value in inputs(50).items()}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda x: x):
        values = interaction(ops, True)(**given)
    by_rows = [shape for shape in kept if len(shape) == 2 and shape[0] == 50]
    used = [given["x"], given["y"], given["bessel"], *values[:2]]  # the last result is no layer's source
    assert sorted(by_rows) == sorted(tensor.shape for tensor in used)


@pytest.mark.parametrize("asked", [("x",), ("y",), ("bessel",), ("x", "y", "bessel"), ("x", "a"), ("d_bias",)])
def test_second_derivatives_through_some_gradients(asked):
    """Forces are the gradient of rows alone; those of the parameters take another path."""
    given = inputs(40)

    def second(operators):
        leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
        value = sum(result.pow(2).sum() for result in interaction(operators)(**leaves))
        first = torch.autograd.grad(value, [leaves[name] for name in asked], create_graph=True)
        found = torch.autograd.grad(sum(gradient.pow(2).sum() for gradient in first), list(leaves.values()))
        return dict(zip(leaves, found, strict=True))

    assert_close(second(ops), second(reference), 1e-13)  # float64, as everywhere in this file


@pytest.mark.parametrize("used", list(itertools.product([True, False], repeat=3))[:-1])
def test_cotangents_of_some_results_alone(used):
    given = inputs(30)

    def first(operators):
        leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
        results = interaction(operators)(**leaves)
        value = sum(result.pow(2).sum() for result, yes in zip(results, used, strict=True) if yes)
        gradients = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return dict(zip(leaves, gradients, strict=True))

    assert_close(first(ops), first(reference), 1e-13)  # float64, as everywhere in this file


@pytest.mark.parametrize("wanted", [("x",), ("bessel",), ("a",), ("up", "y"), ("c_bias",)])
def test_derivatives_by_some_inputs_alone(wanted):
    given = inputs(150, torch.float32)
    leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
    everything = dict(
        zip(leaves, torch.autograd.grad(sum(r.sum() for r in interaction(ops)(**leaves)), leaves.values()))
    )
    leaves = {name: value.clone().requires_grad_(name in wanted) for name, value in given.items()}
    sum(result.sum() for result in interaction(ops)(**leaves)).backward()
    for name, leaf in leaves.items():
        assert torch.equal(leaf.grad, everything[name]) if name in wanted else leaf.grad is None


def test_second_derivatives_where_no_cotangent_reaches_an_input():
    def second(operators):
        leaves = {name: value.clone().requires_grad_() for name, value in inputs(8).items() if name in "xyab"}

        def chain(x, y):
            return operators.linear_silu(x, leaves["a"]), operators.linear_silu(y, leaves["b"])

        used, _ = operators.row_chain(chain, leaves["x"], leaves["y"])
        first = torch.autograd.grad(used.pow(2).sum(), list(leaves.values()), create_graph=True, allow_unused=True)
        assert [gradient is None for gradient in first] == [False, True, False, True]  # as from layers on their own
        value = sum(gradient.pow(2).sum() for gradient in first if gradient is not None)
        return dict(zip("xa", torch.autograd.grad(value, (leaves["x"], leaves["a"])), strict=True))

    assert_close(second(ops), second(reference), 1e-13)  # float64, as everywhere in this file


@pytest.mark.parametrize("asked", [("x", "bessel"), ("x", "a")])
def test_many_cotangents_at_once(asked):
    """As for Hessians with vectorize=True."""
    leaves = {name: value.requires_grad_() for name, value in inputs(5).items()}
    results = interaction(ops)(**leaves)
    first = torch.autograd.grad(
        sum(result.pow(2).sum() for result in results), [leaves[name] for name in asked], create_graph=True
    )
    for outputs in (results, first):
        many = [torch.randn(3, *output.shape, dtype=torch.float64) for output in outputs]

        def gradients(cotangents, batched, outputs=outputs):
            return torch.autograd.grad(
                outputs, leaves.values(), cotangents, retain_graph=True, is_grads_batched=batched
            )

        found = gradients(many, True)
        for number, one in enumerate(zip(*many, strict=True)):
            for gradient, expected in zip(found, gradients(one, False), strict=True):
                # float64, another order of sums of order 100
                torch.testing.assert_close(gradient[number], expected, rtol=1e-11, atol=1e-11)


def test_rows_without_columns():
    x, y = torch.ones(5, 0, requires_grad=True), torch.ones(5, 3, requires_grad=True)
    weight, bias = torch.ones(3, 0, requires_grad=True), torch.full((3,), 2.0, requires_grad=True)
    (result,) = ops.row_chain(lambda x, y: (ops.linear(x, weight, bias) * y,), x, y)
    result.sum().backward()
    assert torch.equal(result, torch.full((5, 3), 2.0)) and torch.equal(y.grad, result)
    assert torch.equal(bias.grad, torch.full((3,), 5.0))


def test_numerical_derivatives():
    given = {name: value.requires_grad_() for name, value in inputs(3, width=9).items()}  # as many passes as numbers
    assert torch.autograd.gradcheck(interaction(ops), tuple(given.values()))
    assert torch.autograd.gradgradcheck(interaction(ops), tuple(given.values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [60, 100, 2500])
def test_the_same_bits_with_any_number_of_threads(rows, dtype, set_threads):
    given = inputs(rows, dtype)
    set_threads(1)
    expected = derivatives(interaction(ops), given)
    for threads in (1, 2, 3):
        set_threads(threads)
        found = derivatives(interaction(ops), given)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_same_bits_without_derivatives():
    given = inputs(777, torch.float32)
    with torch.no_grad():
        plain = interaction(ops)(**given)
    leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
    assert all(map(torch.equal, plain, interaction(ops)(**leaves)))


def test_rows_that_are_not_contiguous():
    given = inputs(50)
    changed = {name: value.mT.contiguous().mT if value.dim() == 2 else value for name, value in given.items()}
    found, expected = derivatives(interaction(ops), changed), derivatives(interaction(ops), given)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("width", [WIDTH, 64])  # 64: whole registers, where the weight is read as it is
def test_weights_that_lie_transposed(width):
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, width, generator=generator, dtype=torch.float64) for n in (50, width))

    def residual(x, weight):
        return ops.row_chain(lambda x: (ops.linear_silu(x, weight) + x,), x)[0]

    expected = derivatives(residual, {"x": x, "weight": weight})
    transposed = derivatives(lambda x, weight: residual(x, by_inner(weight)), {"x": x, "weight": weight})
    assert expected.keys() == transposed.keys() and all(torch.equal(expected[k], transposed[k]) for k in expected)


def test_third_derivatives_raise():
    given = {name: value.requires_grad_() for name, value in inputs(4).items()}
    value = sum(result.pow(3).sum() for result in interaction(ops)(**given))
    for _ in range(2):
        (first,) = torch.autograd.grad(value, given["x"], create_graph=True)
        value = first.pow(2).sum()
    with pytest.raises(RuntimeError, match="third derivatives"):
        value.backward()


def test_autocast_takes_the_layers_one_by_one():
    given = inputs(9, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        narrow, h, _ = interaction(ops)(**given)
        expected, expected_h, _ = interaction(reference)(**given)
    # products rounded to bfloat16, 8 bits, on both sides, but summed in another order
    torch.testing.assert_close(narrow.float(), expected.float(), rtol=0.05, atol=0.05)
    assert h.dtype == expected_h.dtype


def test_traced_by_make_fx():
    given = inputs(9)
    traced = torch.fx.experimental.proxy_tensor.make_fx(lambda x: interaction(ops)(**(given | {"x": x}))[1])(given["x"])
    other = torch.randn_like(given["x"])
    expected = interaction(ops)(**(given | {"x": other}))[1]
    assert_close({"h": traced(other)}, {"h": expected}, 1e-13)  # float64, as everywhere in this file


def _combined_too_late(x):
    h = ops.linear(x, torch.eye(4))
    return (ops.linear(h, torch.eye(4)) * 1.0,)


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda x: (x,), "results of layers"),
        (lambda x: (x + x,), "result of the layer before"),
        (lambda x: (ops.linear(x, torch.eye(4)) + 1.0,), "result of the layer before"),
        (lambda x: (ops.linear(x, torch.eye(4)) + torch.ones(5, 4),), "result of the layer before"),
        (_combined_too_late, "result of the layer before"),
        (lambda x: (torch.ones(5, 4),), "a value of this chain"),
        (lambda x: (ops.linear(x, torch.eye(4)),) * 2, "in the order of the layers"),
        (lambda x: ops.linear(x, torch.eye(4)), "a tuple"),
        (lambda x: (ops.linear(x, x),), "a weight and a bias that are tensors"),
        (lambda x: (ops.radial_filter(x, torch.ones(5, 2), torch.ones(4, 2)),), "a value of this chain"),
    ],
)
def test_what_a_chain_cannot_be(function, message):
    with pytest.raises(TypeError, match=message):
        ops.row_chain(function, torch.ones(5, 4))


def test_a_row_tells_nothing_of_its_tensor():
    with pytest.raises(AttributeError, match=r"layers, radial filters and sums of rows alone, got \.shape"):
        ops.row_chain(lambda x: (ops.linear(x, torch.eye(4)) if x.shape[0] else x,), torch.ones(5, 4))


def test_a_value_that_was_combined_is_gone():
    def function(x):
        h = ops.linear(x, torch.eye(4))
        total = h + x
        return (ops.linear(h, torch.eye(4)), ops.linear(total, torch.eye(4)))

    with pytest.raises(TypeError, match="a value of this chain"):
        ops.row_chain(function, torch.ones(5, 4))


@pytest.mark.parametrize(
    "rows, weight, message",
    [
        ((5, 4), torch.ones(3, 5), r"weights\[0\]: expected shape \[any, 4\], got \[3, 5\]"),
        ((5, 4), torch.ones(3, 4, dtype=torch.float64), r"weights\[0\]: expected dtype Float, got Double"),
        ((5, 4, 1), torch.ones(3, 4), r"rows\[0\]: expected shape \[any, any\], got \[5, 4, 1\]"),
    ],
)
def test_wrong_tensors(rows, weight, message):
    with pytest.raises(RuntimeError, match=message):
        ops.row_chain(lambda x: (ops.linear(x, weight),), torch.ones(rows))


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"h": [torch.ones(4, 3)]}, r"h\[0\]: expected shape \[5, 3\], got \[4, 3\]"),
        ({"h": [torch.ones(0)], "tangents": [torch.ones(5, 4)]}, r"h\[0\]: expected shape \[5, 3\], got \[0\]"),
        ({"h": []}, "h: expected 1 tensors, got 0"),
        ({"results": [torch.ones(5, 4)]}, r"results\[0\]: expected shape \[5, 3\], got \[5, 4\]"),
        ({"grads": [torch.ones(5, 3, dtype=torch.float64)]}, r"grads\[0\]: expected dtype Float, got Double"),
        ({"tangents": [torch.ones(5, 3)]}, r"tangents\[0\]: expected shape \[5, 4\], got \[5, 3\]"),
        ({"wanted": []}, "wanted: expected 1 numbers, got 0"),
    ],
)
def test_wrong_tensors_of_derivatives(changed, message):
    none, out = torch.ones(0), torch.ones(5, 3)
    chain = {"rows": [torch.ones(5, 4)], "weights": [torch.ones(3, 4)], "biases": [none]}
    chain |= {"h": [out], "results": [none], "steps": [0, 1, 0, -1, 1]}
    given = {"grads": [out], "grads_h": [none]} | chain | {"wanted": [1], "of_weights": True, "keep": True}
    name = "row_chain_backward"
    if "tangents" in changed:
        given = {"tangents": [torch.ones(5, 4)], "grad_values": [out]} | chain | {"of_weights": True}
        name = "row_chain_double_backward"
    operator = getattr(torch.ops.spherenet_fast, name)
    operator(**given)
    with pytest.raises(RuntimeError, match=message):
        operator(**(given | changed))
