"""
From the event stream to files that last, and from files into a new online store.

`python -m services.ingestion` follows the stream for ever: `consume` reads, acknowledges and recovers, `sinks` turns
events into partitioned Parquet, `features` keeps the online store fresh. `python -m services.ingestion.seed` fills an
empty store once, `replay` makes it anew from the log. Histories are written by the edge before it answers 202; nothing
here is on a shopper's way.
"""
