"""Networks: features to logits, one file a family."""

from tinyscene.models.cp_mobile import CPMobile
from tinyscene.models.dcase_baseline import Baseline2020, Baseline2021
from tinyscene.models.menu import NETWORKS, create_model, list_models
from tinyscene.models.se_resnet import SEResNet

__all__ = ["NETWORKS", "Baseline2020", "Baseline2021", "CPMobile", "SEResNet", "create_model", "list_models"]
