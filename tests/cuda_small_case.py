"""Every CUDA kernel once, on two small molecules: run by itself under compute-sanitizer (bench/gpu.sh)."""

import torch
from gpu import DEVICE
from molecules import SMALL, moved, rattled_batch, with_outputs

from spherenet_fast.graph import radius_graph
from spherenet_fast.graph.padding import Capacity, fixed_radius_graph
from spherenet_fast.models import SphereNet


def main() -> None:
    for shape in (dict(num_layers=1), SMALL, dict(SMALL, torsion="paper")):
        for dtype in (torch.float32, torch.float64):
            for tf32 in (False, True) if dtype == torch.float32 else (False,):
                torch.backends.cuda.matmul.allow_tf32 = tf32
                data = moved(rattled_batch((7, 5)), DEVICE, dtype)
                model = with_outputs(SphereNet(**shape)).to(DEVICE, dtype).train()
                exact = radius_graph(data.pos, data.batch, 5.0)
                capacity = Capacity(2, len(data.z), len(exact.rev) + 5, exact.num_triplets + 9)
                for graph in (exact, fixed_radius_graph(data.pos, data.batch, 5.0, capacity)[0]):
                    energy, forces = model.energy_and_forces(data, graph)
                    (energy.sum() + forces.square().sum()).backward()
                    assert forces.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters())
                print(f"done: {shape}, {dtype}, TF32 {tf32}", flush=True)


if __name__ == "__main__":
    main()
