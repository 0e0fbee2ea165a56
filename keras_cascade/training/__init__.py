"""What trains, how fast, and what is fitted before."""
