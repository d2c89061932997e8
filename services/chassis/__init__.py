"""
What every model service stands on, in reading order.

`model` the two roles · `artefacts` verified files · `wire` messages and arrays · `worker` the model's thread ·
`stalls` calls that died while we stood still · `servicers` the roles over gRPC · `faults` on demand, for tests ·
`health` listening, readiness, drain · `server` the order of it all · `telemetry` log lines and metrics ·
`__main__` the command line. A model service imports `model` and `artefacts` only; nothing here imports a model
service by name.
"""
