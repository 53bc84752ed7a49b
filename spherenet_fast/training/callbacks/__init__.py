"""What happens around the steps of a training: checkpoints, metrics, progress, signals, threads."""
