"""`make soak` runs the long versions of some tests: whole matrices, more seeds."""

import os

SOAK = bool(os.environ.get("TINYSCENE_SOAK"))
