"""Features that frozen parts computed, kept to be read again."""
