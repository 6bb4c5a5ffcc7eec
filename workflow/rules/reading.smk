"""Central reading: packages for readers, adjudication, lock."""
