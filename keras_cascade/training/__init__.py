"""Sets what trains, how fast, and how far from the pretrained weights."""
