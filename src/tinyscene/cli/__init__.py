"""The command line. Each command is one call to the public API; slow imports happen inside."""

from tinyscene.cli.main import app, main

__all__ = ["app", "main"]
