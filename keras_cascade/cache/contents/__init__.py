"""Contents of operations: their values, and the code that they run."""
