"""DCASE 2025 Task 1: as 2024, with the device known at test time and the limits for each device's model."""

from tinyscene.data.tau import SCENES
from tinyscene.rules.rules import Limit, Rules

dcase2025 = Rules(
    name="dcase2025",
    title="DCASE 2025 Task 1, Low-Complexity Acoustic Scene Classification with Device Information",
    clip_s=1.0,
    limits=(
        Limit("bytes", 128_000, "B", convention="bn2"),
        Limit("macs", 30_000_000, "MMACs", counter="torchinfo"),
    ),
    ranked_by="accuracy, averaged over classes",
    notes=(
        "Zeros count; only what parameters() returns is counted, so that a value in a buffer escapes the challenge's "
        "counter (the ledger lists it as statistic, constant or scale).",
        "The limits hold for each device's model: judge each one separately.",
    ),
    classes=SCENES,
)
