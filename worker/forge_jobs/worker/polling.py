"""How often a worker looks for jobs by itself, where nothing wakes it.

After a look that finds nothing the wait doubles, from the shortest to the longest; whatever is found makes it short again.
"""

SHORTEST_POLL, LONGEST_POLL = 0.1, 5.0  # seconds
