"""The fault matrix on real processes: `python -m loadtests.faults`, see docs/results/README.md."""
