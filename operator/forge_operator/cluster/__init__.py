"""The API server: what the operator reads there, and what it writes."""
