"""How many pods there should be."""
