"""What the user calls a network."""
