"""Data: readers of click logs, Fourfold's own data files, and generated logs."""
