"""Phantom: the digital trial, whose truth is known because it was simulated."""
