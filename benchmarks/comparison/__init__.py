"""`make bench-peers`: forge-jobs beside the other queues, one measured cell after another.

`cells` says what is measured, `rounds` in which order, `measure` how; `results` keeps it on the disk, so that
a run that was killed goes on; `table`, `chart` and `page` show it. The queues are in `benchmarks/peers`.
"""
