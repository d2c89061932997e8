"""
From the event stream to files that last, and from files into a new online store.

`python -m services.ingestion` consumes the stream for ever: `consume` reads, acknowledges and recovers, `sinks`
turns events into partitioned Parquet. `python -m services.ingestion.seed` fills an empty store once. Histories are
written by the edge before it answers 202; nothing here is on a shopper's way.
"""
