"""Draws cascades: boxes and links, their places, and files of them."""
