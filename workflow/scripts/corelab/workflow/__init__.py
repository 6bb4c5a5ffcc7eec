"""What the Snakefile computes: visits of a run, targets, parameters and costs of jobs, messages.

The top layer: it may import every package, and no package imports it. Rule scripts do not use it,
so an edit here reruns no job.
"""
