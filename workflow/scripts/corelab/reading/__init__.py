"""Reads -> final reads: blinded packages, presentation order, adjudication, lock, change log."""
