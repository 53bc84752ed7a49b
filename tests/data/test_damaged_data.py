"""Damaged files of data: one line that names the file, never a crash and no other kind of error."""

import sqlite3
import struct
import warnings
import zipfile

import ase.db
import lmdb
import numpy as np
import pytest
from ase import Atoms
from mutations import mutations
from test_lmdb import structure, write
from test_npz_arrays import LAYOUTS

from spherenet_fast.data import read_molecules
from spherenet_fast.data.formats.lmdb_file import LmdbFile


def outcomes(path, files, **options):
    """How many of the `files` are read, and how many are refused with one line that names the file."""
    count = {True: 0, False: 0}
    for content in files:
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of arrays under damaged names, and of torch's about old formats
            try:
                read_molecules(path, **options)
                count[True] += 1
            except ValueError as error:
                assert path.name in str(error) and "\n" not in str(error)
                count[False] += 1
    return count


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_mutated_archives(tmp_path, layout, save):
    path = tmp_path / "f.npz"
    save(path, **LAYOUTS[layout](), energy_unit="eV", length_unit="bohr")
    count = outcomes(path, mutations(path.read_bytes(), 200 if layout == "frames" else 50))
    assert count[False] > 0.8 * sum(count.values())  # checksums find the damage; zip's dates and such may change


def test_mutated_lmdbs(tmp_path):
    """Nothing of the file is mapped, and all places in it are compared with its size: no subprocess is needed."""
    labels = dict(y=-1.0, force=np.ones((30, 3))), dict(y_relaxed=-1.0, y_init=0.5)
    records = [structure(30, seed, **label) for seed, label in enumerate(labels)]  # on overflow pages
    path = write(tmp_path / "f.lmdb", records)
    count = outcomes(path, mutations(path.read_bytes(), 200))
    assert count[False] > 100 and count[True] > 0  # numbers and free space may change unseen


def test_wrong_bits_in_the_pages_of_an_lmdb(tmp_path):
    """Each of these bytes is a place or a size somewhere; the library lmdb ends the process for one in thirty."""
    path = write(tmp_path / "f.lmdb", [structure(30, seed, y_relaxed=-1.0) for seed in range(2)])
    whole, page = path.read_bytes(), 4096
    header = [number * page + byte for number in range(len(whole) // page) for byte in range(32)]
    leaf = next(n for n in range(2, len(whole) // page) if struct.unpack_from("<H", whole, n * page + 10)[0] == 2)
    nodes = list(range((leaf + 1) * page - 120, (leaf + 1) * page))
    places = np.random.default_rng(0).permutation([*header, *range(40, 152), *range(page + 40, page + 152), *nodes])

    def flipped():
        for number, place in enumerate(places[:200]):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << number % 8
            yield bytes(damaged)

    count = outcomes(path, flipped())
    assert count[False] > 50


@pytest.mark.parametrize("folder", [False, True])
def test_truncated_lmdbs(tmp_path, folder):
    source = write(tmp_path / "source.lmdb", [structure(400, seed, y_relaxed=-1.0) for seed in range(3)])
    whole = source.read_bytes()
    path = tmp_path / "train.lmdb" if not folder else tmp_path / "train" / "data.mdb"
    path.parent.mkdir(exist_ok=True)
    given = path.parent if folder else path
    path.write_bytes(whole)
    assert len(read_molecules(given)) == 3
    for size in (0, 100, 4096, 8192, len(whole) // 2, len(whole) - 4096):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=f"{path.name}: expected an LMDB of pickled structures: truncated"):
            read_molecules(given)


@pytest.mark.parametrize("seed", [0, 1])
def test_values_of_a_large_lmdb(tmp_path, seed):
    """Three levels of pages, values of all sizes, pages used again after deletions; and a compacted copy."""
    draw = np.random.default_rng(seed)
    path, copy = tmp_path / "data.mdb", tmp_path / "copy.mdb"
    with lmdb.open(str(path), subdir=False, map_size=2**27, lock=False, sync=False, writemap=seed == 1) as environment:
        for _ in range(4):
            with environment.begin(write=True) as transaction:
                for key in draw.integers(5000, size=3000):
                    if draw.random() < 0.3:
                        transaction.delete(str(key).encode())
                    else:
                        size = int(draw.choice([0, 1, 200, 1500, 2000, 2050, 9000]))
                        transaction.put(str(key).encode(), draw.bytes(size))
        with environment.begin() as transaction:
            expected = dict(transaction.cursor())
        assert environment.stat()["depth"] == 3
        environment.copy(str(copy), compact=True)
    for file in (path, copy):
        with LmdbFile(file) as found:
            assert len(found) == len(expected) and found.get(b"nothing") is None
            assert all(found.get(key) == value for key, value in expected.items())


def test_lmdbs_of_another_kind(tmp_path):
    with lmdb.open(str(tmp_path / "named.lmdb"), subdir=False, max_dbs=1, lock=False) as environment:
        environment.open_db(b"records")
    with pytest.raises(ValueError, match="named.lmdb: .*key b'records' is not of a single value"):
        read_molecules(tmp_path / "named.lmdb")
    with lmdb.open(str(tmp_path / "none.lmdb"), subdir=False, lock=False):
        pass
    with pytest.raises(ValueError, match="none.lmdb: expected records, got none"):
        read_molecules(tmp_path / "none.lmdb")


@pytest.mark.parametrize("stream", [False, True])
def test_files_of_another_version(tmp_path, stream):
    """Of NumPy's arrays, LMDB's pages and ASE's tables."""
    options = dict(stream=stream, index=tmp_path / "index", workers=0)
    path = tmp_path / "f.npz"
    np.savez(path, **LAYOUTS["packed"]())
    with zipfile.ZipFile(path) as archive:
        arrays = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in arrays.items():
            archive.writestr(name, content.replace(b"\x93NUMPY\x01", b"\x93NUMPY\x09"))
    with pytest.raises(ValueError, match=r"f.npz: .*NumPy's format \(9, 0\)"):
        read_molecules(path, **options)
    path = write(tmp_path / "f.lmdb", [structure(3, y_relaxed=-1.0)])
    path.write_bytes(path.read_bytes().replace(struct.pack("<II", 0xBEEFC0DE, 1), struct.pack("<II", 0xBEEFC0DE, 2)))
    with pytest.raises(ValueError, match="f.lmdb: expected an LMDB .*: there is no header"):
        read_molecules(path, **options)
    path = tmp_path / "f.db"
    with ase.db.connect(path) as rows:
        rows.write(Atoms("H"))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE information SET value = '99' WHERE name = 'version'")
    connection.close()
    with pytest.raises(ValueError, match="f.db: expected structures that ASE can read, got .*new ase.db format"):
        read_molecules(path, **options)


def test_a_pickle_cannot_claim_memory(tmp_path):
    """Python would make room for a billion objects to remember one as number 2^30."""
    path = write(tmp_path / "f.lmdb", [b"\x80\x02]r\x00\x00\x00\x40."], length=False)
    with pytest.raises(ValueError, match="it numbers an object 1073741824"):
        read_molecules(path)
