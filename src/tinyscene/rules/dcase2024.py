"""DCASE 2024 Task 1: 5 to 100 % of the training data, 128,000 bytes, 30 million MACs."""

from tinyscene.data.tau import SCENES
from tinyscene.rules.rules import Limit, Rules

dcase2024 = Rules(
    name="dcase2024",
    title="DCASE 2024 Task 1, Data-Efficient Low-Complexity Acoustic Scene Classification",
    clip_s=1.0,
    limits=(
        Limit("bytes", 128_000, "B", convention="bn2"),
        Limit("macs", 30_000_000, "MMACs", counter="torchinfo"),
    ),
    ranked_by="accuracy, averaged over classes and over the splits of 5, 10, 25, 50 and 100 %",
    notes=("Zeros count.", "torchinfo counts the network as it is submitted: folding batch norm raises its count."),
    classes=SCENES,
)
