"""Gives each block of a cascade its own learning rate."""
