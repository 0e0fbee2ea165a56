"""Writes each file format in a module of its own."""
