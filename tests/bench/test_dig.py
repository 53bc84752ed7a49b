"""The released code as a provider, as far as it goes without its package: stand-ins, absence, table and figure."""

import sys

import pytest
import torch


@pytest.fixture
def matrix():
    """A sparse matrix [5, 4] given in no order, and the same matrix dense; its third row is empty."""
    from bench.providers.dig_stand_ins import SparseTensor

    row, col = torch.tensor([4, 0, 1, 4, 0, 3]), torch.tensor([3, 2, 1, 0, 0, 3])
    value = torch.arange(1.0, 7)
    dense = torch.zeros(5, 4).index_put((row, col), value)
    return SparseTensor(row=row, col=col, value=value, sparse_sizes=(5, 4)), dense


def test_stand_in_for_sparse_matrices(matrix):
    sparse, dense = matrix
    expected_row, expected_col = dense.nonzero(as_tuple=True)  # row by row, as torch_sparse keeps them
    assert torch.equal(sparse.storage.row(), expected_row) and torch.equal(sparse.storage.col(), expected_col)
    assert torch.equal(sparse.storage.value(), dense[expected_row, expected_col])
    assert torch.equal(sparse.sum(dim=1), dense.sum(1))
    assert torch.equal(sparse.set_value(None).sum(dim=1), (dense > 0).sum(1).float())


def test_stand_in_takes_rows_in_any_order_and_number(matrix):
    sparse, dense = matrix
    rows = torch.tensor([3, 4, 2, 4, 0])
    taken, expected = sparse[rows], dense[rows]
    row, col = expected.nonzero(as_tuple=True)
    assert taken.sparse_sizes == (5, 4)
    assert torch.equal(taken.storage.row(), row) and torch.equal(taken.storage.col(), col)
    assert torch.equal(taken.storage.value(), expected[row, col])
    assert taken.set_value(None)[rows].storage.value() is None


def test_stand_in_for_scatter():
    from bench.providers.dig_stand_ins import scatter

    src, index = torch.tensor([[3.0, -1, 2], [5, 4, -6]]), torch.tensor([1, 0, 1])
    assert scatter(src, index).tolist() == [[-1, 5], [4, -1]]  # along the last dimension by default
    assert scatter(src, index, reduce="min").tolist() == [[-1, 2], [4, -6]]
    rows = scatter(src, torch.tensor([2, 0]), dim=0, dim_size=4)
    assert rows.tolist() == [[5, 4, -6], [0, 0, 0], [3, -1, 2], [0, 0, 0]]


def test_stand_ins_are_gone_after_the_import(monkeypatch, tmp_path):
    """So that torch_geometric, which looks for the compiled packages, does not take them for these."""
    from bench.providers import dig_models

    package = tmp_path / "dig" / "threedgraph" / "method"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('needs more than SphereNet does')\n")
    (package / "spherenet.py").write_text("from torch_scatter import scatter\nfrom torch_sparse import SparseTensor\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    try:
        with dig_models._lent_packages():
            import dig.threedgraph.method.spherenet as module
        assert not {"torch_scatter", "torch_sparse", dig_models.METHODS} & (set(sys.modules) - before)
        assert callable(module.scatter) and callable(module.SparseTensor)
    finally:
        for name in set(sys.modules) - before:
            if name.split(".")[0] == "dig":
                del sys.modules[name]


def test_without_the_package_one_line_says_so(monkeypatch, capsys):
    from bench.providers import models
    from bench.speed import run

    monkeypatch.setattr(models, "_is_installed", lambda package: package != "dive-into-graphs")
    monkeypatch.setattr(sys, "argv", ["run", "--providers", "ours", "dig_spherenet"])
    with pytest.raises(SystemExit):
        run.parse()
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].endswith("error: --providers: dig_spherenet needs dive-into-graphs, not installed here")
    monkeypatch.setattr(sys, "argv", ["run"])
    assert "dig_spherenet" not in run.parse().providers and "pyg_dimenet++" in run.parse().providers


def test_where_the_released_code_takes_part():
    from bench.speed import cases

    for case, takes_part in (("qm9", True), ("droplet", True), ("liquid", False), ("models", False)):
        names = ["ours", "dig_spherenet", "pyg_dimenet++"]
        workload = next(cases.workloads(case, names, "cpu", quick=True))
        assert ("dig_spherenet" in workload.prepare) == takes_part, case
    (step,) = [w for w in cases.workloads("aspirin", names, "cpu", quick=False) if w.mode.endswith("step")]
    assert step.memory == ("ours", "dig_spherenet", "pyg_dimenet++")
    on_gpu = cases.workloads("qm9", ["dig_spherenet"], "cpu", quick=False, dry_run=True)
    assert [workload.mode for workload in on_gpu] == ["inference", "energy_step"]  # not recorded as CUDA graphs


def rows_of(providers):
    from bench.speed.result_files import COLUMNS

    def row(provider, metric, unit, median):
        values = ["aspirin", provider, "energy_and_forces_step", metric, unit, "168", median, median, median]
        return dict(zip(COLUMNS, [*values, "none", "0", "1", "none"], strict=True))

    return [
        row(name, *what)
        for name, median in providers.items()
        for what in (("time", "ms", median), ("memory", "MB", "300"))
    ]


def test_column_and_figure_of_the_released_code(tmp_path):
    from bench.speed.figure import draw_steps
    from bench.speed.report import markdown

    with_released = rows_of({"ours": "200", "dig_spherenet": "2000", "pyg_dimenet++": "500"})
    head, _, line = markdown(with_released).splitlines()[2:]
    cells = dict(zip(head.split(" | "), line.split(" | "), strict=True))
    assert cells["released code (DIG)"] == "2,000" and cells["released code / ours"] == "10.00"
    assert cells["MB, released code"] == "300"
    draw_steps(with_released, tmp_path / "with.png")
    assert (tmp_path / "with.png").stat().st_size > 0

    without = rows_of({"ours": "200", "pyg_dimenet++": "500"})
    assert "released" not in markdown(without)
    draw_steps(without, tmp_path / "without.png")
    assert not (tmp_path / "without.png").exists()
