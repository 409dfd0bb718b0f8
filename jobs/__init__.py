"""Whole runs, one module per command of `fourfold`, and example job files."""
