"""Runs written files, and compares their answers with the model's."""
