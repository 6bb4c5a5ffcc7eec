"""config + sheets -> Study: the only package that reads what a user writes."""
