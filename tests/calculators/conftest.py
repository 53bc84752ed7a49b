"""A trained potential for the tests of calculators."""

import pytest
from training_runs import tiny_config

from spherenet_fast.training import train


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A checkpoint of a tiny SphereNet with its kernels, trained on ethanol for a few seconds."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    settings = dict(model__kernels=True, model__hidden_channels=32, model__num_spherical=3, model__cutoff=5.0)
    settings |= dict(model__int_emb_size=16, model__out_emb_channels=32, model__num_radial=6, optimizer__lr=3e-3)
    settings |= dict(training__max_steps=100, training__val_every=50, data__train=200, data__val=10, data__test=0)
    settings |= dict(training__batch_size=4)
    train(tiny_config(**settings), folder)
    return folder / "best.ckpt"
