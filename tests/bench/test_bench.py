"""The benchmarks run, write what they promise, and the linear floor has the products that it claims."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench import machine
from spherenet_fast.data import read_molecules

ROOT = Path(__file__).parents[2]
COLUMNS = "case provider mode metric unit x median p20 p80 device torch threads commit".split()


class MultiplyAdds(TorchDispatchMode):
    """Counts the multiplications of matrix products, whichever way autograd orders them."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        matrices = {torch.ops.aten.mm.default: args[:2], torch.ops.aten.addmm.default: args[1:3]}.get(function)
        if matrices:
            self.count += matrices[0].numel() * matrices[1].shape[1]
        return function(*args, **(kwargs or {}))


def run(module, *arguments):
    command = [sys.executable, "-m", f"bench.{module}", *map(str, arguments)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return process.stdout


def read(folder):
    (path,) = folder.glob("*.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_run_and_report(tmp_path):
    run("speed.run", "--quick", "--cases", "paper_torsions", "--providers", "ours", "--threads", 1, "--out", tmp_path)
    output = run(
        "speed.run", "--quick", "--cases", "ethanol", "paper_torsions", "--providers", "ours", "floor",
        "--threads", 1, "--out", tmp_path,
    )  # fmt: skip
    assert "ours / floor" in output
    rows = read(tmp_path)
    assert list(rows[0]) == COLUMNS
    counted = [row for row in rows if row["metric"] == "kernels"]
    assert counted and all(row["provider"] == "ours" and int(row["median"]) > 0 for row in counted)
    rows = [row for row in rows if row["metric"] == "time"]
    assert [row["case"] for row in rows] == [*["ethanol"] * 4, "paper_torsions"]  # measured twice, kept once
    assert {row["unit"] for row in rows} == {"ms", "ns/triplet"}
    assert all(0 < float(row["p20"]) <= float(row["median"]) <= float(row["p80"]) for row in rows)
    assert {row["threads"] for row in rows} == {"1"}

    readme, without_markers = tmp_path / "README.md", tmp_path / "other.md"
    readme.write_text("before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n")
    without_markers.write_text("text\n")
    run("speed.report", "--results", tmp_path, "--readme", readme, without_markers)
    text = readme.read_text()
    assert text.startswith("before\n<!-- bench:begin -->\n**") and text.endswith("<!-- bench:end -->\nafter\n")
    assert text.count("| ethanol, 16 frames: energy and forces |") == 1 and "old" not in text
    assert without_markers.read_text() == "text\n"
    assert next(tmp_path.glob("*.png")).stat().st_size > 0


def test_baselines_of_the_slabs():
    from bench.training.slab_baselines import errors

    slabs = read_molecules("fcc111")
    platinum = [i for i in range(len(slabs)) if 78 in slabs[i].z]
    others = [i for i in range(len(slabs)) if i not in set(platinum)]
    symbols = [slabs[i].z[-1].item() for i in range(len(slabs))]
    y = slabs.y[:, 0].numpy()
    means = {s: np.mean([y[i] for i in others if symbols[i] == s]) for s in set(symbols)}
    counts = np.array([np.bincount(slabs[i].z, minlength=95) for i in range(len(slabs))], dtype=float)
    solution = np.linalg.lstsq(counts[others], y[others], rcond=None)[0]
    expected = [
        np.mean([abs(y[i] - np.mean(y[others])) for i in platinum]),
        np.mean([abs(y[i] - means[symbols[i]]) for i in platinum]),
        np.abs(counts[platinum] @ solution - y[platinum]).mean(),
    ]
    # sums of float64 in another order; least squares with six columns of metals and eight of adsorbates
    assert errors(slabs, torch.tensor(others), torch.tensor(platinum)) == pytest.approx(expected, rel=1e-9)
    output = run("training.slab_baselines")
    assert "| slabs drawn at random | 100 | 1.108 | 0.530 |" in output  # as in the README
    assert "| Pd, held out | 127 | 1.114 | 0.506 |" in output


def test_memory_above_base():
    from bench.speed import memory

    if not memory.supported("cpu"):
        pytest.skip("the peak of a process is read from /proc, which this system does not have")
    peak = memory.peak_in_fresh_process("ethanol", "energy_and_forces", "ours", 16, threads=1)
    # at least one message for each of the four blocks: 1,152 edges, 128 channels, 4 bytes; at most a GB for a few MB
    assert 4 * 1152 * 128 * 4 < peak < 1e9


def test_out_of_memory_is_a_row():
    from bench.speed.cases import Workload
    from bench.speed.report import markdown
    from bench.speed.run import measure

    environment = dict(device="none", torch="0", threads="1", commit="none")
    calls = {"ours": lambda: lambda: None, "reference": lambda: lambda: torch.empty(2**60)}
    rows = measure(Workload("liquid", "inference", 400, calls), "cpu", True, environment)
    assert [row["median"] == "oom" for row in rows if row["metric"] == "time"] == [False, True]
    assert "out of memory" in markdown(rows)


def test_table_of_all_models():
    from bench.speed.report import markdown
    from bench.speed.result_files import COLUMNS

    def row(provider, metric, unit, median):
        values = ["models", provider, "energy_step", metric, unit, "583", median, "", "", "none", "0", "1", "none"]
        return dict(zip(COLUMNS, values, strict=True))

    rows = [
        row("schnet", "parameters", "", "455809"), row("schnet", "time", "ms", "48"),
        row("schnet", "memory", "MB", "90"), row("pyg_schnet", "time", "ms", "96"), row("ours", "time", "ms", "480"),
    ]  # fmt: skip
    # 110,000 molecules in steps of 32: 3,437.5 steps
    lines = markdown(rows).splitlines()
    assert "| SphereNet |  | 27.5 |  |  |  |" in lines
    assert "| SchNet | 455,809 | 2.75 | 90 | 5.5 | 2.00 |" in lines


def test_the_case_of_all_models():
    from bench.speed import cases
    from bench.speed.run import measure

    environment = dict(device="none", torch="0", threads="1", commit="none")
    names = ["ours", "reference", "floor", "schnet", "physnet"]
    (workload,) = cases.workloads("models", names, "cpu", quick=False)
    assert tuple(workload.prepare) == workload.parameters == workload.memory == ("ours", "schnet", "physnet")
    for workload in cases.workloads("qm9", names, "cpu", quick=False):
        assert list(workload.prepare) == ["ours", "reference", "floor"]
    tiny = cases.Workload("models", "energy_step", 9, {"schnet": lambda: lambda: None}, parameters=("schnet",))
    found = {row["metric"]: row["median"] for row in measure(tiny, "cpu", True, environment)}
    assert found["parameters"] == str(sum(p.numel() for p in cases.make_model("schnet", 7, "cpu").parameters()))


def test_other_errors_are_not_hidden():
    from bench.speed.run import interleaved

    def fails():
        raise RuntimeError("x: expected something else")

    with pytest.raises(RuntimeError, match="something else"):
        interleaved({"ours": lambda: fails}, "cpu", 1.0, 2, 2)


def test_floor_counts_every_linear_layer_once():
    from bench.providers.floor import distance_layers, message_layers, output_layers
    from spherenet_fast.models import SphereNet

    model = SphereNet()
    layers = sum([*distance_layers(model), *output_layers(model)], message_layers(model))
    of_triplets = {f"update_es.{k}.{name}" for k in range(4) for name in ("lin_sbf1", "lin_sbf2", "lin_t1", "lin_t2")}
    wanted = [m for name, m in model.named_modules() if isinstance(m, nn.Linear) and name not in of_triplets]
    assert len(layers) == len(set(layers)) and set(layers) == set(wanted)


def test_floor_has_the_products_of_each_procedure():
    from bench.providers.floor import Floor, distance_layers, message_layers, output_layers
    from spherenet_fast.models import SphereNet

    edges, atoms = 24, 6
    model = SphereNet(hidden_channels=16, int_emb_size=8, out_emb_channels=32, num_layers=2)
    floor = Floor(model, edges, atoms)

    def products(layers, rows):
        return sum(rows * layer.weight.numel() for layer in layers)

    once = products(message_layers(model) + sum(distance_layers(model), []), edges)
    once += products(sum(output_layers(model), []), atoms)
    # the gradient at the predictions is a constant, so one product less in each of the last layers
    last = products([layers[-1] for layers in output_layers(model)], atoms)
    expected = {
        "inference": once, "energy_step": 3 * once, "energy_and_forces": 2 * once,
        "energy_and_forces_step": 6 * once - last,
    }  # fmt: skip
    for mode, count in expected.items():
        with MultiplyAdds() as counter:
            getattr(floor, mode)()
        assert counter.count == count, mode


def test_pyg_models_see_the_same_triplets():
    """Of two overlapping molecules in one batch: those that brute force finds."""
    from bench.providers import pyg_models
    from spherenet_fast.graph import radius_graph

    pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0.5], [0.2, 0.1, 0], [1.1, 0, 1]])
    edge_index = radius_graph(pos, torch.tensor([0, 0, 0, 1, 1]), 5.0).edge_index
    i, j, *of_triplets = pyg_models._triplets(edge_index, len(pos))
    assert torch.equal(torch.stack([j, i]), edge_index)
    edges = edge_index.T.tolist()
    wanted = {
        (b, a, k, edges.index([k, a]), n) for n, (a, b) in enumerate(edges) for k, c in edges if c == a and k != b
    }
    assert set(zip(*(column.tolist() for column in of_triplets))) == wanted and len(wanted) == 6


@pytest.mark.parametrize("system, size", [("liquid", 400), ("slab", 185)])
def test_neighbors_of_periodic_systems_on_a_gpu(system, size):
    """`graph_by_images` stands in for the search that needs another package."""
    from bench import systems
    from spherenet_fast.graph import radius_graph

    data = getattr(systems, system)(size)
    found, expected = systems.graph_by_images(data, 4.0), radius_graph(data.pos, None, 4.0, data.cell, data.pbc)
    assert len(data.z) == size and len(found.rev) > 5 * size
    # the same edges; their images are counted from the atoms as given in both
    assert torch.equal(found.edge_index, expected.edge_index) and torch.equal(found.shift, expected.shift)


def test_a_large_liquid_is_eight_smaller_ones():
    from bench.systems import liquid

    large, part = liquid(8 * 1600), liquid(1600)
    assert len(large.z) == 8 * 1600 and torch.equal(large.cell, 2 * part.cell)
    assert (large.pos >= 0).all() and (large.pos <= large.cell[0, 0, 0] + 1e-3).all()


def test_benchmarks_run_without_the_packages_of_training_and_files(tmp_path):
    program = f"""
import sys
sys.path.append({str(ROOT)!r})
for name in ("ase", "vesin", "lightning", "omegaconf", "matplotlib", "torch_geometric"):
    sys.modules[name] = None
from bench.speed import cases, run
from bench.systems import ethanol
cases.model_call("ours", "energy_and_forces", ethanol(1), 7, "cpu")()
"""
    # away from the source tree, which would be imported instead of the installed package
    process = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_pyg_models_with_given_neighbors():
    """As recorded on a GPU: the same energies and forces, and the search is not called."""
    from bench.providers import pyg_models
    from bench.systems import ethanol

    data = ethanol(3)
    for provider in pyg_models.NEEDS.keys() - {"pyg_dimenet"}:  # takes DimeNet++'s way, and 15 s to build
        model = pyg_models.build(provider).eval()
        expected = model.energy_and_forces(data)
        found = model.energy_and_forces(data, model.neighbors(data))
        assert expected[0].shape == (3, 1) and all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_steps_of_fixed_size_run_as_measured():
    from bench.speed.recording import captured
    from bench.systems import CUTOFF, ethanol
    from spherenet_fast.models import SphereNet

    model = SphereNet(num_spherical=3, num_layers=1)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for procedure in ("inference", "energy_step", "energy_and_forces", "energy_and_forces_step"):
        captured(model, procedure, ethanol(2), CUTOFF)()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())  # a learning rate of 0


def test_structures_of_one_s_own(tmp_path):
    for _ in range(2):
        output = run(
            "speed.own_structures", "fcc111", "--structures", 2, "--num-spherical", 2, "--out", tmp_path / "a.csv"
        )
    assert "largest structure: 20 atoms" in output and "2 of 882 structures: 37 atoms" in output
    rows = [row for row in read(tmp_path) if row["metric"] != "memory"]
    assert [(row["mode"], row["metric"], row["x"]) for row in rows] == [
        (mode, *what)
        for mode in ("energy_step", "energy_and_forces_step")
        for what in (("time", "20"), ("mean time", "2"))
    ]


def test_the_generation_of_a_server_whose_name_does_not_say_it():
    described = "vendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: {}\nmodel name\t: {}\nstepping\t: 1\n"
    names = {
        ("AuthenticAMD", 25, 1, "AMD EPYC"): "AMD EPYC (Zen 3)",
        ("GenuineIntel", 6, 207, "Intel(R) Xeon(R) Processor @ 2.10GHz"): "Intel Xeon (Emerald Rapids)",
        ("GenuineIntel", 6, 9999, "Intel(R) Xeon(R) Processor"): None,
        ("AuthenticAMD", 25, 1, "AMD Ryzen 9"): None,
    }
    for words, name in names.items():
        assert machine.server_name(described.format(*words)) == name
    assert machine.server_name("") is None
