"""Tiles and placements, and the planned exchange of ids, rows and gradients between ranks."""
