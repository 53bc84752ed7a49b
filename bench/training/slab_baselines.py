"""What predictions without a network miss the slabs' energies by: `python -m bench.training.slab_baselines`.

MAE of adsorption energies in eV. The split is that of `spherenet-fast train slabs`. "mean" predicts the mean of the
training set; "mean for each adsorbate" that of the training slabs with the same adsorbed element; "elements" is what
`loss.references=elements` subtracts: linear least squares in the numbers of atoms of every element.
"""

import torch
from torch import Tensor

from spherenet_fast.data import Molecules, read_molecules
from spherenet_fast.training import load_config
from spherenet_fast.training.normalization import fit_elements
from spherenet_fast.training.prepare import prepare_split

METALS = ("Cu", "Rh", "Pd", "Ag", "Ir", "Pt", "Au")
BASELINES = ("mean", "mean for each adsorbate", "elements")


def adsorbates(slabs: Molecules) -> Tensor:
    """[M] int64, atomic number of the atoms adsorbed on each slab, which follow the sixteen of the metal."""
    return slabs.z[slabs.offset[:-1] + 16]


def errors(slabs: Molecules, train: Tensor, test: Tensor) -> list[float]:
    """MAE of the baselines, in their order, on the slabs `test` [.] after the slabs `train` [.], eV."""
    y, adsorbate = slabs.y[:, 0], adsorbates(slabs)
    by_adsorbate = torch.zeros(int(adsorbate.max()) + 1, dtype=y.dtype)
    for number in adsorbate[train].unique():
        by_adsorbate[number] = y[train][adsorbate[train] == number].mean()
    elements = fit_elements(slabs.composition(train), y[train])
    predictions = (y[train].mean(), by_adsorbate[adsorbate[test]], slabs.composition(test) @ elements)
    return [float((prediction - y[test]).abs().mean()) for prediction in predictions]


def main() -> None:
    slabs = read_molecules("fcc111")
    print(f"| tested on | slabs | {' | '.join(BASELINES)} |\n|---|---:|{'---:|' * len(BASELINES)}")
    settings = {"slabs drawn at random": ["data.held_out=[]", "data.test=100"]}
    settings |= {f"{metal}, held out": [f"data.held_out=[{metal}]"] for metal in METALS}
    for name, overrides in settings.items():
        split = prepare_split(load_config("slabs", overrides).data, slabs)
        found = " | ".join(f"{error:.3f}" for error in errors(slabs, split.train, split.test))
        print(f"| {name} | {len(split.test)} | {found} |")


if __name__ == "__main__":
    main()
