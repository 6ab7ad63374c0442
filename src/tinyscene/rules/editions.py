"""The editions of DCASE Task 1 from 2020 to 2025: what each one counts, how, and its limits."""

from tinyscene.data.tau import SCENES
from tinyscene.rules.rules import Limit, Rules

dcase2020 = Rules(
    name="dcase2020",
    title="DCASE 2020 Task 1b, Low-Complexity Acoustic Scene Classification",
    clip_s=10.0,
    limits=(Limit("bytes", 500 * 1024, "KB", convention="bn0", zeros=False),),
    ranked_by="accuracy, averaged over classes",
    notes=(
        "Only non-zero parameters that classify count; batch norm is left out.",
        "A KB has 1024 bytes: the baseline's 115,219 float32 parameters are printed as 450 KB.",
    ),
    classes=("indoor", "outdoor", "transportation"),
)

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

RULES = {rules.name: rules for rules in (dcase2020, dcase2021, dcase2022, dcase2023, dcase2024, dcase2025)}
