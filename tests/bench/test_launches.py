"""Kernels that a pass launches on a GPU, counted on tensors without values."""

import pytest
import torch

from bench.speed import launches
from spherenet_fast.ops import triton_kernels
from spherenet_fast.ops._register import CPU_ONLY, compiled


def test_every_operator_of_a_gpu_is_counted():
    names = {name.partition("::")[2].partition(".")[0] for name in torch._C._dispatch_get_all_op_names()
             if name.startswith("spherenet_fast::")}  # fmt: skip
    assert launches.OWN.keys() == names - CPU_ONLY | {*triton_kernels.NAMES}


def test_what_launches_nothing_and_what_launches_several():
    x, bias = torch.ones(3, 4, 5, device="meta"), torch.ones(3, 1, 6, device="meta")
    with launches.Launches() as found:
        x.view(12, 5).t()[2:].expand(2, 3, 12)
        torch.empty_like(x)
        x + 1
        torch.baddbmm(bias, x, torch.ones(3, 5, 6, device="meta"))
        compiled.silu(x.mT)  # which is copied first
        x[:0].sum(0, keepdim=True)
    assert found.counts == {
        "aten::add": 1,
        "aten::ones": 1,
        "aten::baddbmm": 2,
        "spherenet_fast::silu": 2,
        "aten::sum": 1,
    }


@pytest.mark.parametrize(
    "procedure, most, without_triton",
    [
        ("inference", 72, 180),
        ("energy_step", 185, 472),
        ("energy_and_forces", 176, 391),
        ("energy_and_forces_step", 485, 1079),
    ],
)
def test_kernels_of_a_pass(procedure, most, without_triton):
    """docs/kernels.md has these numbers, too; another version of torch may need a few less."""
    for count, found in ((most, True), (without_triton, False)):
        assert 0.9 * count < launches.kernels(procedure, triton=found).total() <= count
