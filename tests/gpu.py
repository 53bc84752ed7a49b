"""Where the tests that are marked cuda run.

On a GPU; or, with SPHERENET_FAST_TEST_DEVICE=cpu in the environment, on the CPU, which tries the tests themselves:
all but those whose subject is the GPU (`needs_gpu`).
"""

import os

import pytest

DEVICE = os.environ.get("SPHERENET_FAST_TEST_DEVICE", "cuda")
needs_gpu = pytest.mark.skipif(DEVICE != "cuda", reason="streams, graphs and devices of a GPU")
