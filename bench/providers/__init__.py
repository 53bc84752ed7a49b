"""The models that are measured beside each other: this package's, PyTorch Geometric's, DIG's, and the linear floor."""
