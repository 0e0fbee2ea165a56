"""Turns a plan into the blocks of a functional model."""
