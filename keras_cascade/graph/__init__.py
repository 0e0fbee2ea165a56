"""Reading, addressing and copying networks as graphs."""
