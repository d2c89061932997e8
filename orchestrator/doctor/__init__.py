"""
Proving on real processes that the promise holds under faults: `tutti doctor`, and the library of loadtests/faults.

It knows a running system from outside only: its status file, its HTTP answers, its fault proxies' control sockets,
its processes' ids. Nothing of the pipeline is imported, so nothing it finds is found by the code it judges.

Kept empty on purpose: `python -m orchestrator.doctor.fault_proxy` starts once for each proxied port.
"""
