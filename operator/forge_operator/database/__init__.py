"""The database: its address, and the facts in it."""
