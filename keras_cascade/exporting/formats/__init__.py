"""Writes the formats, a module each."""
