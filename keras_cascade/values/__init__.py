"""The values of tensors: what layers give, and what networks expect."""
