"""Data larger than memory: structures are read when a batch needs them, facts about all of them once."""
