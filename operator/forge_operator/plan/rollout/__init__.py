"""Rollouts: which version gets which pods, and when."""
