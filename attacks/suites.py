"""The standard suite: the ensemble of attacks under which every lock is ranked. Data only.

Left out: `full_trainer`, a second implementation of `full`; `mezo`, which needs far more steps than an ordinary budget
has; `undo_all`, which `undo_until_flat` runs where there are several locks; and whatever knows a lock's secret, which
is an upper bound and never ranks. A new attack belongs here, and one that undoes a lock in `undo` too.
"""

from __future__ import annotations

from harness.suites import Suite

STANDARD = Suite(
    attacks=("linear_probe", "partial_depth", "frozen_mlp", "lora", "qlora", "full_8bit", "full", "checkpointing",
             "offload", "relative", "pretrain_first", "undo_pmp", "undo_specdef_reparam", "undo_specdef", "redistill",
             "until_flat", "undo_until_flat", "distil_student"),
    quick=("lora", "full", "checkpointing"),
    undo={"dlr": ("redistill",), "specdef": ("undo_specdef",), "specdef_reparam": ("undo_specdef_reparam",),
          "pmp": ("undo_pmp",)},
)  # fmt: skip
