"""The command line. Each verb is one call of the public API; what is slow to import is imported inside."""

from tinyscene.cli.main import app, main

__all__ = ["app", "main"]
