"""Folds scales, shifts and linear adapters into their neighbours."""
