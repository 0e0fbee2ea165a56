"""Folds scales, shifts and linear adapters into the layers beside them."""
