"""DCASE 2023 Task 1: one-second clips, 128 kB at any precision, 30 million MACs, energy reported."""

from tinyscene.data.tau import SCENES
from tinyscene.rules.rules import Limit, Rules

dcase2023 = Rules(
    name="dcase2023",
    title="DCASE 2023 Task 1, Low-Complexity Acoustic Scene Classification",
    clip_s=1.0,
    limits=(
        Limit("bytes", 128_000, "kB", convention="bn2"),
        Limit("macs", 30_000_000, "MMACs", counter="torchinfo"),
    ),
    ranked_by="weighted average rank of accuracy, memory and MACs; energy is measured beside them",
    notes=(
        "Zeros count; a kB has 1000 bytes.",
        "NeSsi counts, which returns torchinfo's count for a PyTorch network; for a TFLite file its own rule applies, "
        "shown in the ledger as the counter nessi.",
        "The baseline is that of 2022; its counts under this edition are not verified.",
    ),
    classes=SCENES,
)
