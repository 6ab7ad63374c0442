"""DCASE 2021 Task 1a: ten scenes, several devices, under 128 KB."""

from tinyscene.data.tau import SCENES
from tinyscene.rules.rules import Limit, Rules

dcase2021 = Rules(
    name="dcase2021",
    title="DCASE 2021 Task 1a, Low-Complexity Acoustic Scene Classification with Multiple Devices",
    clip_s=10.0,
    limits=(Limit("bytes", 128 * 1024, "KB", convention="bn4", zeros=False),),
    ranked_by="log loss (multi-class cross-entropy)",
    notes=(
        "Only non-zero parameters count; batch norm counts with its running statistics.",
        "The text says 128,000 bytes, the organisers' script divides by 1024: the limit is the script's, 131,072.",
    ),
    classes=SCENES,
)
