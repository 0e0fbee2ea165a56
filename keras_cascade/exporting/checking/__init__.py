"""Runs an exported file with its own runtime, and compares."""
