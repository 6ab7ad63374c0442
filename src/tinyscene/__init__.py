"""tinyscene: low-complexity acoustic scene classification, from a folder of recordings to a classifier that fits.

Everything the command line does is one call to a name here. The names are those of `__init__.pyi`, and are
imported on first use, so that `tinyscene --help` does not wait for PyTorch.
"""

import os

import lazy_loader

from tinyscene.allocator import has_little_memory

if "OMP_WAIT_POLICY" not in os.environ:
    # Read when PyTorch is imported. Its threads spin while they wait for each other, by default so long that two
    # trainings on the same cores take several times as long as one (benchmarks/busy.py).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
if has_little_memory():
    # PyTorch's large pages, also read when it is imported.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.5.0"
