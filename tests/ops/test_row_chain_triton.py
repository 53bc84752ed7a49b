"""Row chains on Triton's kernels, which on a machine without a GPU its interpreter runs on CPU tensors."""

import importlib

import pytest
import torch
from compiled_calls import calls
from operator_cases import assert_close, cast, derivatives
from test_row_chain import assert_found_again, inputs, interaction

from spherenet_fast import ops
from spherenet_fast.ops import reference, triton_kernels

pytest.importorskip("triton", reason="needs Triton, whose wheels are for Linux")

from spherenet_fast.ops.triton_kernels import chain, row_chain, shapes, weight_gradients  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# ten layers, each a sum of some twenty products rounded to 6e-8, and as much again for each derivative
TOLERANCE = 1e-5


class OnTriton:
    """`torch.ops.spherenet_fast` with Triton's kernels for row chains on every device."""

    def __getattr__(self, name):
        if name in triton_kernels.NAMES:
            return getattr(row_chain, name)
        return getattr(torch.ops.spherenet_fast, name)


@pytest.fixture
def on_triton(monkeypatch):
    if DEVICE != "cuda":
        monkeypatch.setattr(importlib.import_module("spherenet_fast.ops.row_chain"), "compiled", OnTriton())


@pytest.mark.parametrize("rows", [1, 20, 140])  # a part of a tile, two tiles, two parts of a sum in three tiles
def test_values_and_derivatives(on_triton, monkeypatch, rows):
    if rows > 64:
        monkeypatch.setattr(chain, "shape_for", lambda num_rows: shapes.SHAPES[0])  # few programs: it takes seconds
    given = inputs(rows, torch.float32)
    found = derivatives(interaction(ops), cast(given, torch.float32, DEVICE))
    assert_close(found, derivatives(interaction(reference), cast(given, torch.float64)), TOLERANCE)


@pytest.mark.parametrize("shape", shapes.SHAPES, ids=lambda shape: f"{shape.rows} rows")
def test_every_shape(on_triton, monkeypatch, shape):
    """More rows than a tile, wider than its columns."""
    monkeypatch.setattr(chain, "shape_for", lambda num_rows: shape)
    generator = torch.Generator().manual_seed(0)
    sizes = dict(x=(70, 32), bessel=(70, 6), wide=(160, 32), narrow=(32, 160), radial=(32, 6))
    given = {name: torch.randn(size, generator=generator) / size[1] ** 0.5 for name, size in sizes.items()}

    def block(operators):
        def run(x, bessel, wide, narrow, radial):
            def chain(x, bessel):
                h = operators.linear_silu(operators.linear_silu(x, wide), narrow) + x
                return h, operators.radial_filter(h, bessel, radial)

            return operators.row_chain(chain, x, bessel)

        return run

    found = derivatives(block(ops), cast(given, torch.float32, DEVICE))
    assert_close(found, derivatives(block(reference), cast(given, torch.float64)), TOLERANCE)


def test_every_call_of_the_compiled_operators():
    """Whatever may be absent, the same tensors are returned: shapes, dtypes, and numbers to rounding."""
    of_operators = calls(torch.float32)
    for name in triton_kernels.NAMES:
        assert of_operators[name]
        for arguments in of_operators[name]:
            expected = getattr(torch.ops.spherenet_fast, name)(*arguments)
            moved = [[t.to(DEVICE) for t in a] if _is_tensors(a) else a for a in arguments]
            found = getattr(row_chain, name)(*moved)
            assert [tensor.shape for tensor in found] == [tensor.shape for tensor in expected]
            for mine, other in zip(found, expected, strict=True):
                # two layers; sums of some ten numbers of order 1
                torch.testing.assert_close(mine.cpu(), other, rtol=1e-5, atol=1e-5)


def _is_tensors(argument):
    return isinstance(argument, list) and all(isinstance(value, torch.Tensor) for value in argument)


def test_what_is_found_again_is_what_would_have_been_stored(on_triton):
    assert_found_again(cast(inputs(20, torch.float32), torch.float32, DEVICE))


def test_products_of_lower_precision(on_triton):
    """As under autocast: rows and sums in float32, the factors of products in float16."""
    given = cast(inputs(20, torch.float32), torch.float32, DEVICE)
    weights = [name for name in given if given[name].dim() == 2 and name not in ("x", "y", "bessel")]
    lower = given | {name: given[name].half() for name in weights}
    found, expected = derivatives(interaction(ops), lower), derivatives(interaction(reference), given)
    halves = {name for name in found if found[name].dtype == torch.float16}
    assert halves == {f"{prefix} {name}" for name in weights for prefix in ("grad", "grad grad")}
    # float16 has 11 bits, 5e-4, ten layers deep, and as much again for each derivative
    assert_close(found, expected, 0.02)


def test_precision_follows_torch():
    weight, before = torch.ones(2, 2), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        assert shapes.precision_of(weight) == "tf32x3"
        torch.set_float32_matmul_precision("high")
        assert shapes.precision_of(weight) == "tf32" and shapes.precision_of(weight.bfloat16()) == "ieee"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("num_rows, tile", [(1, 16), (2112, 16), (3360, 32), (8448, 64), (9162, 32), (10**6, 64)])
def test_shapes_by_the_number_of_rows(num_rows, tile):
    """One tile for each of 132 processors up to 16 and 32 rows; 64 rows where no processor has a tile to itself."""
    assert shapes.shape_for(num_rows).rows == tile


@pytest.mark.parametrize("num_rows", [1, 127, 128, 129, 300, 5000, 10**6])
def test_parts_have_all_rows(num_rows):
    parts, part_rows = weight_gradients.parts_of(num_rows)
    assert 1 <= parts <= 16 and (parts - 1) * part_rows < num_rows <= parts * part_rows


@pytest.mark.parametrize(
    "change, expected",
    [
        ({}, True),
        ({"rows": torch.ones(5, 4, dtype=torch.float64)}, False),
        ({"rows": torch.ones(5, 4, 1)}, False),
        ({"rows": torch.ones(5, 0)}, False),
        ({"weights": torch.ones(257, 4)}, False),
        ({"weights": torch.ones(3, 4, dtype=torch.bfloat16)}, True),
        ({"biases": torch.ones(3, dtype=torch.float64)}, False),
        ({"rows": torch.ones(1, 1).expand(2**29, 4)}, False),  # places in arrays have 32 bits
    ],
)
def test_which_chains_are_taken(change, expected):
    given = {"rows": torch.ones(5, 4), "weights": torch.ones(3, 4), "biases": None} | change
    assert triton_kernels.takes(*([value] for value in given.values())) == expected


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"weights": [torch.ones(3, 5)]}, r"weights\[0\]: expected shape \[3, 4\], got \[3, 5\]"),
        (
            {"rows": [torch.ones(5, 4, dtype=torch.float64)]},
            "expected torch.float32 on cpu, got torch.float64",
        ),
        ({"biases": [torch.ones(4)]}, r"biases\[0\]: expected shape \[3\], got \[4\]"),
        ({"steps": [0, 1, 1, 0, 1]}, "steps: expected two of one width in step 0, got 3 and 4"),
    ],
)
def test_wrong_tensors(changed, message):
    given = {"rows": [torch.ones(5, 4)], "weights": [torch.ones(3, 4)], "biases": [torch.ones(0)]}
    given |= {"steps": [0, 1, 0, -1, 1], "save": False}
    with pytest.raises(RuntimeError, match=message):
        row_chain.row_chain(**(given | changed))
