"""Readers, one module a format: each returns packed `Molecules`."""
