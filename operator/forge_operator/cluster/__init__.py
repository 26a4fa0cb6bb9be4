"""The API server: what is read there, and what is written."""
