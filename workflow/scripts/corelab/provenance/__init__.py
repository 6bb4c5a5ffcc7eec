"""Digests, complete-or-absent products, manifest, trace, verification. Imports no other package."""
