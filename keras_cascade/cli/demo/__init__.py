"""Runs the demo: two networks that know printed characters read handwriting."""
