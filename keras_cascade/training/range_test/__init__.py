"""Tests a range of learning rates, and suggests one per block."""
