"""Models that show how one is written."""
