"""Measures how far blocks moved from their pretrained state."""
