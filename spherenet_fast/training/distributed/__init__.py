"""Several processes, one for each device, that train together."""
