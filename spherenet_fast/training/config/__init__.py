"""Configs: their sections as dataclasses, and the YAML files that they are read from."""

from .sections import Config, DataConfig, LossConfig, OptimizerConfig, TrainingConfig

__all__ = ["Config", "DataConfig", "LossConfig", "OptimizerConfig", "TrainingConfig"]
