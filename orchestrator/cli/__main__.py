"""`python -m orchestrator.cli`: the `tutti` command where no script is installed."""

from orchestrator.cli import main

main()
