"""Stores of cached features: rows by content, in memory and on disk."""
