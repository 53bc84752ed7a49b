"""Benchmarks and measurements. Every program runs as a module, from the root of the repository: README.md has them."""
