"""The knobs of one training run. Imports no torch: attacks and the command line read them before torch is needed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from harness.settings import Settings

OPTIMIZER_NAMES = ("adamw_torch", "adamw_8bit", "sgd", "adafactor", "rmsprop", "adagrad", "adadelta", "muon",
                   "shampoo", "soap", "psgd_kron", "sophia", "adahessian", "lbfgs")  # fmt: skip
"""What `harness.optim` can build, known without torch, so that another name is refused before a lock is made."""
NOT_RESUMABLE = ("shampoo", "soap", "psgd_kron", "lbfgs")
"""Optimizers whose state is no flat set of tensors: a run with them has no checkpoints (`save_steps`)."""


class TrainSettings(Settings):
    """Training knobs under the names of transformers.TrainingArguments."""

    learning_rate: float = Field(3e-3, gt=0)
    """Peak learning rate."""
    max_steps: int = Field(100, gt=0)
    """Optimizer steps; a smaller budget shortens the schedule too."""
    per_device_train_batch_size: int = Field(8, gt=0)
    """Sequences a micro-batch."""
    gradient_accumulation_steps: int = Field(1, gt=0)
    """Micro-batches an optimizer step."""
    block_size: int = Field(128, gt=1)
    """Tokens a sequence; documents are packed without padding."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup", "step"] = "cosine"
    """Schedule after warm-up; `step` multiplies the rate by 0.7 after each tenth of the steps, and has no warm-up."""
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    """Share of the steps spent warming up."""
    optim: str = "adamw_torch"
    """Optimizer by name, one of `OPTIMIZER_NAMES`."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """First AdamW beta."""
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    """Second AdamW beta."""
    adam_epsilon: float = Field(1e-8, gt=0)
    """AdamW epsilon."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradient norm clip; 0 is off."""
    gradient_checkpointing: bool = False
    """Recompute activations in backward instead of keeping them."""
    eval_points: int = Field(5, ge=0)
    """Points of the trajectory at which the model is scored, the end included (the start is added)."""
    save_steps: int = Field(0, ge=0)
    """Steps between resumable checkpoints in the context's folder; 0 is none."""

    @field_validator("optim")
    @classmethod
    def _known_optimizer(cls, name: str) -> str:
        if cls.model_fields["optim"].annotation is str and name not in OPTIMIZER_NAMES:  # else by its own type
            raise ValueError(f"allowed: {', '.join(OPTIMIZER_NAMES)}")
        return name

    @field_validator("weight_decay", "save_steps")
    @classmethod
    def _optimizer_has_it(cls, value: float, info: ValidationInfo) -> float:
        """What an optimizer does not have is refused before a lock is made, not once it is built."""
        optim = info.data.get("optim")
        if value and info.field_name == "save_steps" and optim in NOT_RESUMABLE:
            raise ValueError(f"optim={optim} cannot be resumed, set save_steps=0")
        if value and info.field_name == "weight_decay" and optim == "lbfgs":
            raise ValueError("optim=lbfgs has none, set weight_decay=0")
        return value
