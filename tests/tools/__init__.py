"""Tools that are no tests: too slow to run each time."""
