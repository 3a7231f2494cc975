"""The places where workers can be started, one per file."""
