"""Several builds of the library against each other: `python -m bench.gpu.compare_builds A.so B.so`.

Each runs in a fresh process, in turns, twice: medians of recorded steps, and whether energies, forces and gradients
have the bits of the first build's, or by how much they differ.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "spherenet_fast"
LIBRARY = "_C.abi3.so"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="*", type=Path, metavar="LIBRARY")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--molecules", type=int, help="32 of QM9 and 8 frames of aspirin unless given")
    parser.add_argument("--replays", type=int, default=30)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # where one build's results go
    arguments = parser.parse_args()
    if arguments.measure:
        return measure(arguments)
    if missing := [str(path) for path in arguments.variants if not path.is_file()]:
        parser.error(f"LIBRARY: expected files, got {', '.join(missing)}")
    failed = set()
    with tempfile.TemporaryDirectory() as folder:
        results = [Path(folder) / f"{number}.pt" for number in range(len(arguments.variants))]
        for _ in range(arguments.turns):
            for variant, result in zip(arguments.variants, results, strict=True):
                line = run_one(variant.resolve(), result, arguments)
                print(f"{variant}: {line or 'FAILED'}", flush=True)
                failed |= set() if line else {str(variant)}
        for variant, result in list(zip(arguments.variants, results, strict=True))[1:]:
            if result.exists() and results[0].exists():
                print(f"{variant} and {arguments.variants[0]}: {difference(result, results[0])}", flush=True)
    if failed:
        sys.exit(f"compare_builds: failed: {', '.join(sorted(failed))}")


def run_one(variant: Path, result: Path, arguments) -> str | None:
    """The medians of one build, as printed, or None if it fails: a package of links with that library in it."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / PACKAGE.name
        package.mkdir()
        for entry in PACKAGE.iterdir():
            if entry.name not in (LIBRARY, "__pycache__"):
                (package / entry.name).symlink_to(entry)
        (package / LIBRARY).symlink_to(variant)
        command = [sys.executable, "-m", "bench.gpu.compare_builds", "--measure", result, "--device", arguments.device]
        command += ["--replays", str(arguments.replays)]
        command += ["--molecules", str(arguments.molecules)] if arguments.molecules else []
        search = os.pathsep.join([folder, str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": search}
        # in that folder, because `-m` imports from the working directory first
        done = subprocess.run(list(map(str, command)), cwd=folder, stdout=subprocess.PIPE, text=True, env=environment)
    return done.stdout.strip().splitlines()[-1] if done.returncode == 0 else None


def measure(arguments) -> None:
    import torch

    from bench.speed.cases import graph_of, make_model, model_call
    from bench.speed.result_files import REPLAY
    from bench.speed.run import seconds
    from bench.systems import CUTOFF, aspirin, qm9

    medians, tensors = {}, {}
    for case, system, size, procedure in (
        ("qm9", qm9, 32, "energy_step"), ("aspirin", aspirin, 8, "energy_and_forces_step"),
    ):  # fmt: skip
        data = system(arguments.molecules or size).to(arguments.device)
        model = make_model("ours", 7, arguments.device).train()
        energy, forces = model.energy_and_forces(data, graph_of(data, CUTOFF))
        (energy.square().mean() + forces.square().mean()).backward(inputs=list(model.parameters()))
        tensors |= {f"{case} energy": energy.detach().cpu(), f"{case} forces": forces.detach().cpu()}
        tensors |= {f"{case} {name}": p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad(set_to_none=True)
        del energy, forces
        call = model_call("ours", procedure + REPLAY, data, 7, arguments.device)
        times = list(map(partial(seconds, device=arguments.device), [call] * arguments.replays))
        medians[f"{case} {procedure}, ms"] = round(1e3 * statistics.median(times), 4)
    torch.save(tensors, arguments.measure)
    print(json.dumps(medians))


def difference(one: Path, other: Path) -> str:
    import torch

    mine, theirs = torch.load(one), torch.load(other)
    if all(torch.equal(mine[name], theirs[name]) for name in theirs):
        return "the same bits"
    errors = {
        name: float((mine[name].double() - value.double()).norm() / value.double().norm().clamp_min(1e-300))
        for name, value in theirs.items()
    }
    worst = max(errors, key=errors.get)
    return f"norms of the differences up to {errors[worst]:.1e} of the norm ({worst})"


if __name__ == "__main__":
    main()
