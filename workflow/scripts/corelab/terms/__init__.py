"""Names with one home: statistics, endpoints, labels of masks, kinds of scan.

The lowest package: it imports nothing else of the library.
"""
