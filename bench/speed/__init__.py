"""Time and memory of models and operators: `python -m bench.speed.run`."""
