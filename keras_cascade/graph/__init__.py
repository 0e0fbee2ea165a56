"""Reads, addresses, changes and copies networks as graphs."""
