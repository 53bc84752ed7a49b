"""ASE's integrators: made from the settings, and their numbers saved and put back."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT
from ase.md.velocitydistribution import Stationary, ZeroRotation, force_temperature
from ase.md.verlet import VelocityVerlet

from .settings import Settings

# Time constants of npt in timesteps, as ASE recommends them.
THERMOSTAT, BAROSTAT = 100, 1000


class Draws:
    """The random numbers of structures that move together: each has its own, of `seed` plus its number.

    sizes: their numbers of atoms.
    """

    def __init__(self, seed: int, sizes: Sequence[int]):
        self.sizes = sizes
        self.generators = [np.random.default_rng(seed + number) for number in range(len(sizes))]

    def standard_normal(self, size: tuple[int, ...]) -> np.ndarray:
        """[N, 3], as of a generator of NumPy. size: N of all structures together, and 3."""
        drawn = [
            one.standard_normal((count, *size[1:])) for one, count in zip(self.generators, self.sizes, strict=True)
        ]
        return np.concatenate(drawn)

    @property
    def state(self) -> list[dict]:
        """Of the generators; it may be set."""
        return [dict(generator.bit_generator.state) for generator in self.generators]

    @state.setter
    def state(self, states: list[dict]) -> None:
        for generator, state in zip(self.generators, states, strict=True):
            generator.bit_generator.state = state


def draw_velocities(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Velocities of Maxwell and Boltzmann, scaled to `temperature` (K, of 3 N degrees of freedom less constraints).

    Neither the whole moves, nor, if it does not repeat, does it rotate.
    """
    masses = atoms.get_masses()[:, None]
    atoms.set_momenta(rng.standard_normal((len(atoms), 3)) * np.sqrt(masses * max(temperature, 1e-3) * units.kB))
    if len(atoms) > 1 and not atoms.constraints:
        Stationary(atoms)
        if not atoms.pbc.any():
            with np.errstate(invalid="ignore", divide="ignore"):  # the axis of a linear molecule has no inertia
                ZeroRotation(atoms)
    if atoms.get_kinetic_energy() > 0:
        force_temperature(atoms, temperature)


def make_integrator(atoms: Atoms, settings: Settings, rng: Draws) -> MolecularDynamics:
    """What moves `atoms` by a step. rng: of the random forces."""
    timestep = settings.timestep * units.fs
    if settings.ensemble == "nve":
        return VelocityVerlet(atoms, timestep)
    if settings.ensemble == "langevin":
        # ASE's default holds the center of mass, which is no canonical ensemble, and is going to be removed.
        free = {"fixcm": False} if "fixcm" in inspect.signature(Langevin).parameters else {}
        friction = settings.friction / units.fs
        return Langevin(atoms, timestep, temperature_K=settings.temperature, friction=friction, rng=rng, **free)
    kind = MTKNPT if settings.flexible else IsotropicMTKNPT
    return kind(
        atoms, timestep, temperature_K=settings.temperature, pressure_au=settings.pressure * units.GPa,
        tdamp=THERMOSTAT * timestep, pdamp=BAROSTAT * timestep,
    )  # fmt: skip


def numbers_of(integrator: MolecularDynamics) -> dict[str, np.ndarray]:
    """All numbers of an integrator, those of its thermostat and barostat included, by name."""
    found = {}
    for prefix, owner in _owners(integrator).items():
        for name, value in vars(owner).items():
            if isinstance(value, float | np.ndarray):
                found[prefix + name] = np.array(value)
    return found


def put_numbers(integrator: MolecularDynamics, numbers: dict[str, np.ndarray]) -> None:
    """Make the integrator the one that `numbers_of` has described.

    Raises ValueError where it is another one, as in another version of ASE.
    """
    owners = _owners(integrator)
    places = {key: key[: key.rfind(".") + 1] for key in numbers}
    own = numbers_of(integrator)
    alike = all(key in numbers and numbers[key].shape == value.shape for key, value in own.items())
    if not alike or set(places.values()) - owners.keys():
        name = type(integrator).__name__
        raise ValueError(f"--resume: expected the numbers of {name} as in this version of ASE, got those of another")
    for key, value in numbers.items():
        name = key.removeprefix(places[key])
        setattr(owners[places[key]], name, value.item() if value.ndim == 0 else value)


def _owners(integrator: MolecularDynamics) -> dict[str, Any]:
    parts = {f"{name}.": part for name, part in vars(integrator).items() if type(part).__module__.startswith("ase.md")}
    return {"": integrator, **parts}
