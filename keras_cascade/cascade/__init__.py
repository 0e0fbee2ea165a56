"""Defines the cascade: its parts, its training, its methods."""
