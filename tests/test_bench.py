"""The benchmarks run, write what they promise, and the linear floor has the products that it claims."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

BENCH = Path(__file__).parents[1] / "bench"
COLUMNS = "case provider mode metric unit x median p20 p80 device torch threads commit".split()


class MultiplyAdds(TorchDispatchMode):
    """Counts the multiplications of matrix products, whichever way autograd orders them."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        matrices = {torch.ops.aten.mm.default: args[:2], torch.ops.aten.addmm.default: args[1:3]}.get(function)
        if matrices:
            self.count += matrices[0].numel() * matrices[1].shape[1]
        return function(*args, **(kwargs or {}))


@pytest.fixture
def bench(monkeypatch):
    """Lets a test import the scripts, which import each other by their bare names."""
    monkeypatch.syspath_prepend(str(BENCH))


def run(script, *arguments):
    command = [sys.executable, str(BENCH / script), *map(str, arguments)]
    process = subprocess.run(command, cwd=BENCH.parent, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return process.stdout


def read(folder):
    (path,) = folder.glob("*.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_run_and_report(tmp_path):
    run("run.py", "--quick", "--cases", "torsion_reference", "--providers", "ours", "--threads", 1, "--out", tmp_path)
    output = run(
        "run.py", "--quick", "--cases", "ethanol", "torsion_reference", "--providers", "ours", "floor",
        "--threads", 1, "--out", tmp_path,
    )  # fmt: skip
    assert "ours / floor" in output
    rows = read(tmp_path)
    assert list(rows[0]) == COLUMNS
    assert [row["case"] for row in rows] == [*["ethanol"] * 4, "torsion_reference"]  # measured twice, kept once
    assert {row["unit"] for row in rows} == {"ms", "ns/triplet"}
    assert all(0 < float(row["p20"]) <= float(row["median"]) <= float(row["p80"]) for row in rows)
    assert {row["threads"] for row in rows} == {"1"}

    readme, without_markers = tmp_path / "README.md", tmp_path / "other.md"
    readme.write_text("before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n")
    without_markers.write_text("text\n")
    run("report.py", "--results", tmp_path, "--readme", readme, without_markers)
    text = readme.read_text()
    assert text.startswith("before\n<!-- bench:begin -->\n**") and text.endswith("<!-- bench:end -->\nafter\n")
    assert text.count("| ethanol, 16 frames: energy and forces |") == 1 and "old" not in text
    assert without_markers.read_text() == "text\n"
    assert next(tmp_path.glob("*.png")).stat().st_size > 0


def test_memory_above_base(bench):
    import memory

    if not memory.supported("cpu"):
        return
    peak = memory.peak_in_fresh_process("ethanol", "energy_and_forces", "ours", 16, threads=1)
    # at least one message for each of the four blocks: 1,152 edges, 128 channels, 4 bytes; at most a GB for a few MB
    assert 4 * 1152 * 128 * 4 < peak < 1e9


def test_out_of_memory_is_a_row(bench):
    from cases import Workload
    from report import markdown
    from run import measure

    environment = dict(device="none", torch="0", threads="1", commit="none")
    calls = {"ours": lambda: lambda: None, "reference": lambda: lambda: torch.empty(2**60)}
    rows = measure(Workload("liquid", "inference", 400, calls), "cpu", True, environment)
    assert [row["median"] == "oom" for row in rows] == [False, True]
    assert "out of memory" in markdown(rows)


def test_other_errors_are_not_hidden(bench):
    from run import interleaved

    def fails():
        raise RuntimeError("x: expected something else")

    with pytest.raises(RuntimeError, match="something else"):
        interleaved({"ours": lambda: fails}, "cpu", 1.0, 2, 2)


def test_floor_counts_every_linear_layer_once(bench):
    from floor import distance_layers, message_layers, output_layers

    from spherenet_fast.models import SphereNet

    model = SphereNet()
    layers = sum([*distance_layers(model), *output_layers(model)], message_layers(model))
    of_triplets = {f"update_es.{k}.{name}" for k in range(4) for name in ("lin_sbf1", "lin_sbf2", "lin_t1", "lin_t2")}
    wanted = [m for name, m in model.named_modules() if isinstance(m, nn.Linear) and name not in of_triplets]
    assert len(layers) == len(set(layers)) and set(layers) == set(wanted)


def test_floor_has_the_products_of_each_procedure(bench):
    from floor import Floor, distance_layers, message_layers, output_layers

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


def test_pyg_models_see_the_same_triplets(bench):
    """Of two overlapping molecules in one batch: those that brute force finds."""
    import pyg_models

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
