"""Knows the package itself: what it exports, needs and ships."""
