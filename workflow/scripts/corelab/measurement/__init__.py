"""Masks, maps and sheets -> measurement rows: the one place that turns voxels into numbers."""
