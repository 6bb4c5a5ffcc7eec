"""Training of the networks in ``resources/models``, on synthesised heads; no part of a study."""
