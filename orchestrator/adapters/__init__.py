"""One outside thing each, behind a port. Errors are translated here, once, into a named loss."""
