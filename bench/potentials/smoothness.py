"""How smooth the energies of trained models are: `python -m bench.potentials.smoothness CHECKPOINT...`.

One row for each model. Every bond of a molecule is stretched from 0.7 to 1.6 times its length in 200 steps; counted are
minima of the energy beyond the one that a bond has. On random line segments through geometries (all atoms move, an atom
passes through the line of two others, an atom leaves) counted are differences of energies above five times what the
forces and their change nearby explain, and segments on which a force jumps. A jump is what is left of a change between
two neighboring points when their distance goes to almost nothing.
"""

import argparse
from pathlib import Path

import torch

from bench.potentials import motions, trained_models
from bench.tables import Row, append
from spherenet_fast import keep_freed_memory
from spherenet_fast.checks.continuity import Found, Surface, follow, minima
from spherenet_fast.checks.lines import stretches
from spherenet_fast.training import Potential

STRETCH = ("bonds stretch_points artificial_minima stretch_energy_jump_meV stretch_force_jump_eV_per_Ang").split()
SEGMENTS = (
    "segments points energy_differences_exceeding segments_exceeding energy_jump_meV segments_with_force_jump "
    "force_jump_eV_per_Ang"
).split()
COLUMNS = [*trained_models.MODEL, "data", *STRETCH, *SEGMENTS, *trained_models.MEASURED]
KEY = ("checkpoint", "dtype", "data", "stretch_points", "segments", "points")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--data", help="geometries, as `data.source` of a config [those that each was trained on]")
    parser.add_argument("--more-data", default="qm9", help="others for every second segment; none: no others [qm9]")
    parser.add_argument("--steps", type=int, default=200, help="of the stretch of a bond [200]")
    parser.add_argument("--segments", type=int, default=200, help="0 leaves them out [200]")
    parser.add_argument("--points", type=int, default=2000, help="of a segment [2000]")
    parser.add_argument("--dtype", nargs="+", choices=("float32", "float64"), default=["float64"], help="[float64]")
    parser.add_argument("--batch", type=int, default=64, help="geometries computed at once [64]")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=trained_models.RESULTS / "smoothness.csv", help="rows to add to")
    parser.add_argument("--picture", type=Path, help="draw the energies on a way past a neighbor here, and stop")
    arguments = parser.parse_args()
    if min(arguments.steps, arguments.points) < 12 or arguments.segments < 0:
        parser.error("--steps, --points: expected at least 12 (--segments: 0)")
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    try:
        if arguments.picture is not None:
            draw(arguments.checkpoints, arguments)
            return
        for checkpoint in arguments.checkpoints:
            for dtype in arguments.dtype:
                row = measure(checkpoint, dtype, arguments)
                print(", ".join(f"{name} {row[name]}" for name in (*trained_models.MODEL, "data", *STRETCH, *SEGMENTS)))
                append(arguments.out, [row], COLUMNS, KEY)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))


def measure(checkpoint: Path, dtype: str, arguments: argparse.Namespace) -> Row:
    """One row of COLUMNS."""
    potential, factor = trained_models.load(checkpoint, dtype, arguments.device)
    surface = Surface(potential, factor, arguments.batch)
    source = _source(potential, arguments)
    molecules = trained_models.geometries(source, potential)
    row = trained_models.describe(checkpoint, potential) | {"data": trained_models.title(source)}
    frame = molecules[trained_models.lowest(molecules)]
    found = [follow(surface, line, arguments.steps + 1) for line in stretches(frame.z, frame.pos)]
    values = [len(found), arguments.steps + 1, sum(max(0, minima(one.energy) - 1) for one in found)]
    row |= dict(zip(STRETCH, [*map(str, values), *_largest(found)]))
    sources = [molecules]
    if arguments.segments and arguments.more_data not in (None, "none"):
        sources.append(trained_models.geometries(arguments.more_data, potential))
        row["data"] += f" and {trained_models.title(arguments.more_data)}"
    lines = motions.segments(sources, arguments.segments, potential.model.hparams["cutoff"])
    found = [follow(surface, line, arguments.points) for line in lines]
    energy_jump, force_jump = _largest(found)
    values = [len(found), arguments.points, sum(one.exceeding for one in found)]
    values += [sum(one.exceeding > 0 for one in found), energy_jump, sum(one.force_jumps for one in found), force_jump]
    return row | dict(zip(SEGMENTS, map(str, values)))


def _source(potential: Potential, arguments: argparse.Namespace) -> str:
    if arguments.data is None and potential.config is None:
        raise ValueError("--data: expected a source, as the checkpoint does not say where its data was, got none")
    return arguments.data or potential.config["data"]["source"]


def _largest(found: list[Found]) -> list[str]:
    """The largest jumps of energy, meV, and of a force, eV/Å."""
    energy = 1e3 * max((one.energy_jump for one in found), default=0.0)
    return [f"{value:.3g}" for value in (energy, max((one.force_jump for one in found), default=0.0))]


def draw(checkpoints: list[Path], arguments: argparse.Namespace) -> None:
    """Energies and slopes of the models on one way past a neighbor, in the first one's geometry."""
    from matplotlib.figure import Figure

    from spherenet_fast.plots.files import check_picture, save

    check_picture(arguments.picture)
    figure, line = Figure(figsize=(9, 3.6), layout="constrained"), None
    left, right = figure.subplots(1, 2)
    for checkpoint in checkpoints:
        potential, factor = trained_models.load(checkpoint, arguments.dtype[0], arguments.device)
        if line is None:
            molecules = trained_models.geometries(_source(potential, arguments), potential)
            frame = molecules[trained_models.lowest(molecules)]
            line = motions.overtaking(frame.z, frame.pos)
        t = torch.linspace(0, 1, 2 * (arguments.points // 2) + 1, dtype=torch.float64)
        energy, forces = Surface(potential, factor, arguments.batch)(line, t)
        x, length = (t - 0.5) * line.length(), line.length()
        label = trained_models.describe(checkpoint, potential)["model"]
        left.plot(x, 1e3 * (energy - energy[0]), ".", ms=2, label=label)
        right.plot(x, (forces * line.move).sum((1, 2)) / length, ".", ms=2, label=label)
    left.set_ylabel("energy, meV, less that at the left end")
    right.set_ylabel("force along the way, eV/Å")
    for axes in (left, right):
        axes.axvline(0, lw=0.6, color="black")
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel("Å beyond the place where a neighbor is overtaken")
        axes.legend(fontsize=8, frameon=False, markerscale=4)
    save(figure, arguments.picture)
    print(f"picture in {arguments.picture}")


if __name__ == "__main__":
    main()
