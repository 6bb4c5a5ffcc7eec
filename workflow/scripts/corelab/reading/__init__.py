"""Reads -> final reads: blinded packages, presentation order, adjudication, lock, change log.

``presentation`` orders what readers see, ``packages`` and ``blinding`` write and prove what they
get, ``adjudication`` makes one final read of two, ``lock`` and ``change_log`` keep it.
"""
