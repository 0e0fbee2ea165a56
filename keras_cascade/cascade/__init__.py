"""The cascade: what it is made of, how it trains, and what it can do."""
