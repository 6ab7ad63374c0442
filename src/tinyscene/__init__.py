"""tinyscene: low-complexity acoustic scene classification, from a folder of recordings to a classifier that fits.

Everything the command line does is one call to a name here. The names are those of `__init__.pyi`, and are
imported on first use, so that `tinyscene --help` does not wait for PyTorch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.5.0"
