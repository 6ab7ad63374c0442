"""Networks: from features to logits, one file a family."""

from tinyscene.models.aemnet import AemNet
from tinyscene.models.bc_resnet_mod import BCResNetMod
from tinyscene.models.cp_mobile import CPMobile
from tinyscene.models.dcase_baseline import Baseline2020, Baseline2021
from tinyscene.models.menu import create_classifier, create_frontend
from tinyscene.models.moments_linear import MomentsLinear
from tinyscene.models.network import Network
from tinyscene.models.pham_cnn import PhamCNN
from tinyscene.models.plain_cnn import PlainCNN
from tinyscene.models.registry import NETWORKS, create_model, list_models, register_network
from tinyscene.models.se_resnet import SEResNet
from tinyscene.models.tandem import Tandem

__all__ = [
    "NETWORKS",
    "AemNet",
    "BCResNetMod",
    "Baseline2020",
    "Baseline2021",
    "CPMobile",
    "MomentsLinear",
    "Network",
    "PhamCNN",
    "PlainCNN",
    "SEResNet",
    "Tandem",
    "create_classifier",
    "create_frontend",
    "create_model",
    "list_models",
    "register_network",
]
