"""Small networks of our own, trained on synthesised heads alone, and their inference."""
