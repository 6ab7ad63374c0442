"""Exported files: written, checked on their own runtime, counted by reading them."""

from tinyscene.deployment.artifact import Artifact
from tinyscene.deployment.certificate import Certificate
from tinyscene.deployment.export import export
from tinyscene.deployment.file_ledger import differences, ledger_of_file
from tinyscene.deployment.menu import FORMATS
from tinyscene.deployment.parity import Parity
from tinyscene.deployment.runtime import kernels, layers_by_kernel

__all__ = [
    "FORMATS",
    "Artifact",
    "Certificate",
    "Parity",
    "differences",
    "export",
    "kernels",
    "layers_by_kernel",
    "ledger_of_file",
]
