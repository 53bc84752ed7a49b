"""NumPy archives: cells, kinds of numbers, sizes, and arrays that nothing reads."""

import warnings
import zipfile

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.neighborlist import neighbor_list

from spherenet_fast.data import read_molecules
from spherenet_fast.graph.periodic import periodic_pairs


def frames(count=2):
    draw = np.random.default_rng(0)
    return {
        "z": np.array([8, 1, 1]),
        "pos": draw.normal(size=(count, 3, 3)),
        "energy": draw.normal(size=count),
        "forces": draw.normal(size=(count, 3, 3)),
    }


def packed():
    draw = np.random.default_rng(0)
    return {"n_atoms": np.array([1, 2]), "z": np.array([8, 1, 1]), "pos": draw.normal(size=(3, 3)), "gap": np.ones(2)}


def relaxations():
    draw = np.random.default_rng(0)
    return {
        "n_atoms": np.array([1, 2]), "z": np.array([8, 1, 1]), "pos_initial": draw.normal(size=(3, 3)),
        "cell": np.stack([9 * np.eye(3)] * 2), "fixed": np.array([0, 1, 0]), "energy_initial": np.zeros(2),
        "energy_relaxed": np.ones(2), "frame_system": np.array([0, 1]), "frame_energy": np.zeros(2),
        "frame_pos": draw.normal(size=(3, 3)), "frame_forces": draw.normal(size=(3, 3)),
    }  # fmt: skip


def divided():
    return {"z": frames()["z"]} | {p + k: v for p in ("train_", "test_") for k, v in frames().items() if k != "z"}


LAYOUTS = {"frames": frames, "packed": packed, "relaxations": relaxations, "divided": divided}


def read(path, arrays, **options):
    np.savez(path, **arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_molecules(path, **options)


# Cells


def edges(molecules, cutoff=3.0):
    batch = molecules[[0]]
    if batch.cell is None:
        return len(batch.z) * (len(batch.z) - 1)  # all of them are near
    ptr = torch.tensor([0, len(batch.z)])
    return len(periodic_pairs(batch.pos.double(), ptr, batch.cell.double(), batch.pbc, cutoff)[0])


@pytest.mark.parametrize("name", ["cell", "lattice"])
@pytest.mark.parametrize("of_each_frame", [False, True])
def test_a_crystal_is_no_molecule(tmp_path, name, of_each_frame):
    copper = bulk("Cu", cubic=True)
    cell = np.stack([copper.cell, 1.1 * copper.cell]) if of_each_frame else np.asarray(copper.cell)
    arrays = {"z": copper.numbers, "pos": np.stack([copper.positions] * 2), name: cell}
    crystal = read(tmp_path / "f.npz", arrays)
    assert edges(crystal) == 4 * 12 and crystal.pbc.all()  # twelve neighbors in fcc
    assert np.allclose(crystal.cell[1], cell[1] if of_each_frame else cell, rtol=1e-6)  # float32
    assert edges(read(tmp_path / "g.npz", arrays | {"pbc": False})) == 4 * 3
    slab = read(tmp_path / "h.npz", arrays | {"pbc": [True, True, False]})
    assert slab.pbc.tolist() == [[True, True, False]] * 2 and 4 * 3 < edges(slab) < 4 * 12
    each = read(tmp_path / "i.npz", arrays | {"pbc": [[1, 1, 1], [0, 0, 1]]})
    assert each.pbc.tolist() == [[True] * 3, [False, False, True]]


def test_rows_of_a_cell_are_its_vectors(tmp_path):
    copper = bulk("Cu")  # one atom: the edges are the vectors of the lattice
    copper.set_cell([[2.5, 0, 0], [1.1, 2.4, 0], [1.0, -0.8, 2.2]])
    arrays = {"z": copper.numbers, "pos": copper.positions[None], "lattice": np.asarray(copper.cell)}
    batch = read(tmp_path / "f.npz", arrays, dtype=torch.float64)[[0]]
    shift = periodic_pairs(batch.pos, torch.tensor([0, 1]), batch.cell, batch.pbc, 4.0)[2]
    found, expected = (shift.double() @ batch.cell[0]).numpy(), neighbor_list("D", copper, 4.0)
    assert np.allclose(*(np.unique(vectors.round(6), axis=0) for vectors in (found, expected)))


def test_cells_of_packed_and_divided_structures(tmp_path):
    cell = np.diag([9.0, 8, 0])  # open along its third vector, which is zero
    for number, (arrays, count) in enumerate(((packed(), 2), (divided(), 4))):
        molecules = read(tmp_path / f"{number}.npz", arrays | {"cell": cell})
        assert molecules.cell.tolist() == [cell.tolist()] * count
        assert molecules.pbc.tolist() == [[True, True, False]] * count
    of_parts = {"train_cell": cell, "test_cell": np.stack([2 * cell] * 2)}
    molecules = read(tmp_path / "parts.npz", divided() | of_parts)
    assert molecules.cell[:, 0, 0].tolist() == [9, 9, 18, 18]
    with pytest.raises(ValueError, match="expected cells for all of train_, test_, got some without"):
        read(tmp_path / "some.npz", divided() | {"train_cell": cell})
    slab = read(tmp_path / "slab.npz", relaxations() | {"pbc": [[True, True, False]] * 2})
    assert slab.pbc.tolist() == [[True, True, False]] * 2
    assert read(tmp_path / "none.npz", frames() | {"cell": np.zeros((3, 3))}).cell is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"cell": np.ones(3)}, r"cell: expected shape \[3, 3\] or \[2, 3, 3\], got \[3\]"),
        ({"cell": np.ones((5, 3, 3))}, r"cell: expected shape \[3, 3\] or \[2, 3, 3\], got \[5, 3, 3\]"),
        ({"lattice": np.eye(3), "pbc": np.ones(2)}, r"pbc: expected shape \[\], \[3\] or \[2, 3\], got \[2\]"),
        ({"lattice": np.eye(3), "pbc": [0, 1, 2]}, r"pbc: expected false or true, 0 or 1, got 2 at \[2\]"),
        ({"pbc": True}, "pbc: expected an array cell with it, got none"),
        ({"cell": ["a", "b", "c"]}, "cell: expected numbers of at most 64 bits, got text"),
    ],
)
def test_cells_that_are_none(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=f"f.npz: {message}"):
        read(tmp_path / "f.npz", frames() | arrays)


# Kinds of numbers

NAMES = [(layout, name) for layout, make in LAYOUTS.items() for name in make()]


@pytest.mark.parametrize(("layout", "name"), NAMES)
def test_arrays_that_are_not_numbers_are_named(tmp_path, layout, name):
    arrays = LAYOUTS[layout]()
    options = {"relaxations": name.startswith("energy_")} if layout == "relaxations" else {}
    for value, kind in ((np.longdouble, "longdouble|float128"), ("U5", "text"), (complex, "complex128")):
        if name == "gap" and value is not np.longdouble:
            continue  # not taken for a label; see the test of warnings
        with pytest.raises(ValueError, match=rf"f.npz: {name}: expected numbers of at most 64 bits, got ({kind})"):
            read(tmp_path / "f.npz", arrays | {name: arrays[name].astype(value)}, **options)
    if name != "gap":
        np.savez(tmp_path / "f.npz", **arrays | {name: arrays[name].astype(object)})
        with pytest.raises(ValueError, match=rf"f.npz: {name}: expected numbers .*got objects"):
            read_molecules(tmp_path / "f.npz", **options)


@pytest.mark.parametrize(("layout", "name"), NAMES)
def test_numbers_of_any_byte_order_and_size(tmp_path, layout, name):
    arrays = LAYOUTS[layout]()
    options = {"relaxations": name.startswith("energy_")} if layout == "relaxations" else {}
    expected = read(tmp_path / "f.npz", arrays, dtype=torch.float64, **options)
    for dtype in (">f8", ">i4", "<f4"):
        if dtype == ">i4" and not np.array_equal(arrays[name], np.round(arrays[name])):
            continue
        changed = arrays | {name: arrays[name].astype(dtype)}
        found = read(tmp_path / "g.npz", changed, dtype=torch.float64, **options)
        for field in ("n_atoms", "z", "pos", "y", "forces", "cell", "fixed", "group"):
            one, other = getattr(expected, field), getattr(found, field)
            # float32 rounds to half a part in 2^24
            assert one is other or torch.allclose(one.double(), other.double(), rtol=2**-24, atol=0)


@pytest.mark.parametrize(
    ("layout", "name"),
    [("frames", "z"), ("packed", "z"), ("packed", "n_atoms"), ("relaxations", "z"), ("relaxations", "n_atoms"),
     ("relaxations", "frame_system"), ("relaxations", "fixed"), ("divided", "z")],
)  # fmt: skip
@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 1e300])
def test_fractions_of_atoms_are_refused(tmp_path, layout, name, value):
    arrays = LAYOUTS[layout]()
    arrays[name] = arrays[name].astype(float)
    arrays[name][1] = value
    number = str(value).replace("+", r"\+")
    expected = "false or true, 0 or 1" if name == "fixed" else "whole numbers"
    with pytest.raises(ValueError, match=rf"f.npz: {name}: expected {expected}, got {number} at \[1\]"):
        read(tmp_path / "f.npz", arrays)


def test_whole_numbers_that_do_not_fit(tmp_path):
    arrays = packed() | {"z": np.array([8, 2**64 - 1, 1], dtype=np.uint64)}
    with pytest.raises(ValueError, match=r"z: expected whole numbers, got 18446744073709551615 at \[1\]"):
        read(tmp_path / "f.npz", arrays)
    huge = packed() | {"n_atoms": np.array([2**63 - 1, 2**63 - 1, 5]), "gap": np.ones(3)}  # the sum is 3, overflown
    with pytest.raises(ValueError, match="f.npz: n_atoms: expected at most 3 atoms, as in z, got 9223372036854775807"):
        read(tmp_path / "f.npz", huge)


# Sizes


def with_member(path, arrays, name, content, declared=None):
    """An archive of `arrays` in which `name` has the bytes `content`."""
    np.savez_compressed(path, **{key: value for key, value in arrays.items() if key != name})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{name}.npy", content)
    if declared is not None:  # the uncompressed size in the directory
        data = bytearray(path.read_bytes())
        data[(place := data.rindex(b"PK\x01\x02") + 24) : place + 4] = declared.to_bytes(4, "little")
        path.write_bytes(data)
    return path


def npy(shape, content=b"", descr="<f8"):
    header = str({"descr": descr, "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


@pytest.mark.parametrize("shape", [(2**40, 3, 3), (2**62, 3, 3), (2**70, 3, 3), (4, 3, 3), (-2, 3, 3), (1, 3, 3)])
def test_sizes_that_the_file_does_not_have(tmp_path, shape):
    content = npy(shape, np.zeros(2 * 3 * 3).tobytes())
    path = with_member(tmp_path / "f.npz", frames(), "pos", content)
    with pytest.raises(ValueError, match=rf"f.npz: pos: .*its header states float64 \[{shape[0]}, 3, 3\]"):
        read_molecules(path)


def test_a_directory_that_states_another_size(tmp_path):
    content = npy((2**28, 3, 3), np.zeros(2 * 3 * 3).tobytes())
    path = with_member(tmp_path / "f.npz", frames(), "pos", content, declared=2**28 * 72 % 2**32 + 128)
    with pytest.raises(ValueError, match="f.npz: pos: .*its header states"):
        read_molecules(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00" + bytes(200), npy((2, 3, 3), descr="<U99999999999"),
     npy((2, 3, 3), descr="x"), npy("x" * 9), b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 118, b"PK" * 100],
)  # fmt: skip
def test_damaged_headers_of_arrays(tmp_path, content):
    with pytest.raises(ValueError, match="f.npz: pos: expected an array as NumPy saves it, got a damaged one"):
        read_molecules(with_member(tmp_path / "f.npz", frames(), "pos", content))


# Arrays that nothing reads


def test_arrays_that_are_not_understood_are_named_once(tmp_path):
    for layout, make in LAYOUTS.items():
        more = {"dipole": np.ones((2, 3)), "smiles": np.array(["O", "C"]), "notes": np.array({}, dtype=object)}
        arrays = make() | more
        path = tmp_path / f"{layout}.npz"
        np.savez(path, **arrays)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            read_molecules(path)
        assert [str(warning.message) for warning in caught] == [
            f"{path}: not used, as they are not understood: arrays dipole, smiles, notes"
        ]


def test_labels_of_one_part_are_named(tmp_path):
    arrays = divided()
    del arrays["test_forces"]
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.warns(UserWarning, match="not understood: arrays train_forces"):
        assert read_molecules(tmp_path / "f.npz").forces is None


def test_descriptions_are_no_labels(tmp_path):
    of_sgdml = {"type": "d", "name": "water", "theory": "unknown", "md5": "0" * 32, "code_version": "1.0"}
    of_sgdml |= {f"{array}_{kind}": 1.0 for array in "EF" for kind in ("min", "max", "mean", "var")}
    arrays = {{"pos": "R", "energy": "E", "forces": "F"}.get(name, name): array for name, array in frames().items()}
    assert len(read(tmp_path / "f.npz", arrays | of_sgdml)) == 2
    of_rmd17 = {"old_indices": np.arange(2), "old_energies": np.ones(2), "old_forces": np.ones((2, 3, 3))}
    names = {"pos": "coords", "energy": "energies", "z": "nuclear_charges"}
    arrays = {names.get(name, name): array for name, array in frames().items()}
    assert len(read(tmp_path / "g.npz", arrays | of_rmd17)) == 2
    fixed = read(tmp_path / "h.npz", frames() | {"fixed": [True, False, False]})
    assert fixed.fixed.tolist() == [True, False, False] * 2


def test_errors_of_structures_name_the_file(tmp_path):
    for change, message in (
        ({"z": np.array([8, 1, 200])}, "z: expected atomic numbers 1 to 94, got 1 to 200"),
        ({"n_atoms": np.array([1, 1])}, r"z: expected 2 atoms \(the sum of n_atoms\), got 3"),
        ({"pos": np.full((3, 3), np.inf)}, "pos: expected finite numbers, got inf for pos of molecule 0"),
    ):
        with pytest.raises(ValueError, match=f"f.npz: {message}"):
            read(tmp_path / "f.npz", packed() | change)


def test_arrays_larger_than_the_memory(tmp_path, monkeypatch):
    def full(*_, **__):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(np.lib.format, "read_array", full)
    with pytest.raises(ValueError, match=r"f.npz: z: expected an array that fits into memory, .*9 TiB"):
        read(tmp_path / "f.npz", frames())
