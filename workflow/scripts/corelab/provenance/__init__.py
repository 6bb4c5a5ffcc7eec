"""Digests, whole-or-absent products, manifest, trace and verification. Imports no other room."""
