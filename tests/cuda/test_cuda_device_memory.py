"""What a GPU has and lacks: shared memory, memory, other GPUs. Everything is marked cuda."""

import os
import subprocess
import sys

import pytest
import torch
from gpu import DEVICE, needs_gpu
from molecules import SMALL, labeled_batch, moved, with_outputs
from operator_cases import assert_close, cast, derivatives, gated_function, gated_inputs
from operator_graphs import GRAPHS, on_device

from spherenet_fast import ops
from spherenet_fast.cuda_graph import CapturedModel
from spherenet_fast.models import SphereNet

pytestmark = pytest.mark.cuda
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
SHAPE = dict(num_spherical=7, num_radial=6, channels=64, angle_size=8, torsion_size=8)


@needs_gpu
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_more_shared_memory_than_a_kernel_has_unasked(dtype, tolerance):
    """Backward and double backward of a model's gated sum take more than 48 KB a block, in float64 forward, too."""
    vec, graph = GRAPHS["batch"]
    inputs = cast(gated_inputs(vec, **SHAPE), dtype)
    function = gated_function(ops, vec.to(DEVICE), on_device(graph, DEVICE))
    found = derivatives(function, cast(inputs, dtype, DEVICE))
    assert_close(found, derivatives(gated_function(ops, vec, graph), cast(inputs, torch.float64)), tolerance)


@needs_gpu
def test_out_of_memory_leaves_a_process_that_goes_on():
    model = with_outputs(SphereNet(**SMALL)).to(DEVICE).eval()
    data = moved(labeled_batch((6, 5)), DEVICE, torch.float32)
    expected = model.energy_and_forces(data)
    large = moved(labeled_batch((9,) * 400), DEVICE, torch.float32)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**22) / total)
    try:
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            model.energy_and_forces(large)
        predict = CapturedModel(model, after=0)
        with pytest.warns(UserWarning, match="runs without CUDA graphs, which takes longer: CUDA out of memory"):
            with pytest.raises(torch.OutOfMemoryError):
                predict.energy_and_forces(large)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert all(map(torch.equal, model.energy_and_forces(data), expected))


@pytest.mark.parametrize("visible", ["", pytest.param("1", marks=two_gpus)])
def test_visible_devices(visible):
    """Of none the CPU is taken, of the second GPU alone it is the first one."""
    program = (
        "import torch; from spherenet_fast import SphereNet; "
        "device = 'cuda' if torch.cuda.is_available() else 'cpu'; model = SphereNet(num_spherical=3).to(device); "
        "data = {'z': torch.tensor([8, 1, 1]), 'pos': torch.eye(3)}; "
        "model({name: value.to(device) for name, value in data.items()}); print(device, torch.cuda.device_count())"
    )
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": visible}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == (["cuda", "1"] if visible else ["cpu", "0"]), done.stderr
