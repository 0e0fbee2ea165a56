"""Turns the arguments into a checked plan; builds nothing."""
