"""Blocks of the config and entries of the plan as typed records: the one home of each default."""
