"""Which atomic numbers there are, and which values hyper-parameters take: types for the constructors of models."""

from typing import Annotated, NamedTuple

MAX_ATOMIC_NUMBER = 94
NUM_ELEMENTS = MAX_ATOMIC_NUMBER + 1  # rows of an embedding; row 0 stays unused


class Range(NamedTuple):
    """The smallest and the largest value of a hyper-parameter, as in `Annotated[int, Range(1, 8)]`."""

    low: float
    high: float


Cutoff = Annotated[float, Range(1e-3, 1000.0)]  # Å
Layers = Annotated[int, Range(1, 100)]
MoreLayers = Annotated[int, Range(0, 100)]  # of a layer's own, which may be none
Width = Annotated[int, Range(1, 4096)]
BasisWidth = Annotated[int, Range(1, 1024)]
NumGaussians = Annotated[int, Range(2, 4096)]
NumSpherical = Annotated[int, Range(1, 8)]
NumRadial = Annotated[int, Range(1, 16)]
EnvelopeExponent = Annotated[int, Range(1, 63)]
MaxNeighbors = Annotated[int, Range(1, 2**31 - 1)] | None
