"""Records that stages exchange: typed, and read and written here alone."""
