"""From stored images to what a vision model reads: the processor that stands in a tokenizer's place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from harness.errors import UsageError
from harness.models.gate import read_json
from harness.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import torch

FILE = "preprocessor_config.json"


class ImageProcessor(Settings):
    """Size, channels and normalisation; written as plain transformers reads it (a `ViTImageProcessor`)."""

    size: int = Field(gt=0)
    """Pixels a side."""
    channels: int = Field(3, ge=1)
    """Channels; a grey image is repeated."""
    mean: tuple[float, ...] = (0.5,)
    """Subtracted from pixels in [0, 1], a number a channel or one for all."""
    std: tuple[float, ...] = (0.5,)
    """Divides after."""

    def __call__(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """(batch, channels, size, size) float32 of uint8 images, all (height, width) or (height, width, channels)."""
        import numpy as np
        import torch

        pixels = torch.from_numpy(np.stack(images)).float() / 255
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
        if pixels.shape[1] == 1:
            pixels = pixels.expand(-1, self.channels, -1, -1)
        elif self.channels == 1:
            pixels = pixels.mean(1, keepdim=True)
        if pixels.shape[-2:] != (self.size, self.size):
            size = (self.size, self.size)
            pixels = torch.nn.functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return ((pixels - mean) / std).contiguous()

    def save_pretrained(self, folder: Path) -> None:
        """Write preprocessor_config.json."""
        both = (1,) if self.channels == 1 else (1,) * self.channels
        written = {
            "image_processor_type": "ViTImageProcessor", "do_resize": True, "do_rescale": True, "do_normalize": True,
            "rescale_factor": 1 / 255, "resample": 2, "size": {"height": self.size, "width": self.size},
            "image_mean": list(self.mean * len(both) if len(self.mean) == 1 else self.mean),
            "image_std": list(self.std * len(both) if len(self.std) == 1 else self.std), "num_channels": self.channels,
        }  # fmt: skip
        (Path(folder) / FILE).write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")

    @classmethod
    def from_folder(cls, folder: Path, channels: int) -> ImageProcessor:
        """Read preprocessor_config.json; images are scaled to its size, whatever crop it describes.

        Raises:
            UsageError: it is missing or names no square size.
        """
        config = read_json(folder / FILE)
        size = _side(config.get("size"))
        mean, std = config.get("image_mean", [0.0]), config.get("image_std", [1.0])
        if size is None:
            raise UsageError(f"{folder / FILE}: size={config.get('size')!r} is not that of a square image")
        return cls.parse({"size": size, "channels": channels, "mean": tuple(mean), "std": tuple(std)},
                         str(folder / FILE))  # fmt: skip


def _side(size: Any) -> int | None:
    """Of transformers' spellings: 32, {"height": 32, "width": 32} or {"shortest_edge": 32}."""
    if isinstance(size, dict):
        sides = set(size.values()) if {"height", "width"} <= size.keys() else {size.get("shortest_edge")}
        size = sides.pop() if len(sides) == 1 else None
    return size if type(size) is int else None
