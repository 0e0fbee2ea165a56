"""Writes what users read: messages, tables, progress and figures."""
