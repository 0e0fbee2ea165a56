"""Tables that describe cascades."""
