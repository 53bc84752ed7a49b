"""Where the forces of a run come from: a potential, a committee of them, or any calculator of ASE."""

from collections.abc import Sequence
from typing import NamedTuple

from ase.calculators.calculator import Calculator

from ..calculators.ase import SphereNetCalculator
from ..calculators.committee import Committee
from ..training.potential import Potential

REACH = 6.0  # Å: an atom with nobody within it has left, whatever the calculator


class Forces(NamedTuple):
    """What `run_dynamics` moves atoms by.

    Attributes:
        calculator: gives energies (eV) and forces (eV/Å).
        identity: {option: value} of what a resumed run has to have in common with the one that it goes on with.
        reach: Å; an atom that had a neighbor within it and has none is gone.
        name: of the calculator in trajectories.
    """

    calculator: Calculator
    identity: dict
    reach: float = REACH
    name: str = "spherenet_fast"

    @classmethod
    def of_potential(cls, potential: Potential) -> "Forces":
        """Those of a potential of an energy whose unit is known."""
        dtype = str(next(potential.parameters()).dtype).removeprefix("torch.")
        identity = {"dtype": dtype, "checkpoint": potential.state()["digest"]}
        return cls(SphereNetCalculator(potential), identity, potential.model.cutoff)

    @classmethod
    def of_committee(cls, potentials: Sequence[Potential]) -> "Forces":
        """The mean of several, in the same order on a resume."""
        members = [cls.of_potential(potential) for potential in potentials]
        identity = {name: [member.identity[name] for member in members] for name in members[0].identity}
        committee = Committee([member.calculator for member in members])
        return cls(committee, identity, min(member.reach for member in members))
