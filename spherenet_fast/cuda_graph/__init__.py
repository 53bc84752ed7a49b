"""Steps of fixed size, recorded once as CUDA graph and replayed for batches of changing sizes.

    capacity = Capacity.of(batches, model.cutoff)
    predict = CapturedInference(model.eval(), capacity)
    energy, forces = predict(data)

    step = CapturedTraining(model.train(), loss, torch.optim.AdamW(model.parameters(), capturable=True), capacity)
    value = step(data)

A batch is copied into arrays that have room for the capacity (`graph/padding.py`); everything from there on, the search
for neighbors included, is one recorded graph of kernels, so that nothing but its launch costs time on the host. The
neighbors of periodic structures, and those of a model with max_num_neighbors, are found before, or given by the
caller. On the CPU the same steps run without being recorded.

The first WARM_UP calls run as they are, on a stream of their own, because libraries set themselves up on first use; the
next one records. From then on the model's weights must stay where they are in memory: to change them, copy into them.
"""

from ..graph.padding import Capacity, CapacityError
from .automatic import CapturedModel
from .recorded import WARM_UP, Recorded, RecordingError
from .steps import CapturedInference, CapturedTraining, masked_mean

__all__ = [
    "WARM_UP", "Capacity", "CapacityError", "CapturedInference", "CapturedModel", "CapturedTraining", "Recorded",
    "RecordingError", "masked_mean",
]  # fmt: skip
