"""
The processes around the orchestrator: one folder a model, the chassis they run on, training and ingestion.

Services share `protos` with the orchestrator and nothing else. A folder that declares `ROLE` is a model.
"""
