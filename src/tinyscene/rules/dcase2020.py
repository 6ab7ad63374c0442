"""DCASE 2020 Task 1b: three classes of scene under 500 KB."""

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
