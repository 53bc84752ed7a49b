"""Evaluating a trained potential: on what, what it predicts there, and its errors as tables and files."""

from .data import evaluation_data
from .predictions import Predictions, predictions

__all__ = ["Predictions", "evaluation_data", "predictions"]
