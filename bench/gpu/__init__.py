"""The steps of gpu.sh on a GPU that is lent for minutes."""
