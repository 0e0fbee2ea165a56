"""Leaves nothing half done, whatever interrupts a call."""
