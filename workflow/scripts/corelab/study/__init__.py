"""config + sheets -> Study: the only room that reads what a user writes."""
