"""Exported files, checked on their own runtime before they get their names."""

from tinyscene.deployment.artifact import Artifact
from tinyscene.deployment.certificate import Certificate
from tinyscene.deployment.export import export
from tinyscene.deployment.menu import FORMATS
from tinyscene.deployment.page import page
from tinyscene.deployment.parity import Parity
from tinyscene.deployment.runtime import kernels, layers_by_kernel

__all__ = [
    "FORMATS",
    "Artifact",
    "Certificate",
    "Parity",
    "export",
    "kernels",
    "layers_by_kernel",
    "page",
]
