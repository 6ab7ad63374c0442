"""Exported files: written, checked on their own runtime, counted by reading them."""
