"""Reads the files and folders that the console takes as data."""
