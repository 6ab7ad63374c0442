"""DCASE 2022 Task 1: one-second clips, 128,000 int8 parameters, 30 million MACs."""

from tinyscene.data.tau import SCENES
from tinyscene.rules.rules import Limit, Rules

dcase2022 = Rules(
    name="dcase2022",
    title="DCASE 2022 Task 1, Low-Complexity Acoustic Scene Classification",
    clip_s=1.0,
    limits=(
        Limit("parameters", 128_000, "k parameters", convention="int8_folded"),
        Limit("macs", 30_000_000, "MMACs", counter="nessi"),
    ),
    ranked_by="log loss (multi-class cross-entropy)",
    notes=(
        "Zeros count, and every parameter is an int8.",
        "MACs are NeSsi's count of the TFLite file. The 46,512 that it prints for the baseline are bytes, with "
        "biases of four; the folded parameters are 45,990.",
    ),
    classes=SCENES,
)
