"""Image classification on MNIST and its kin and CIFAR-10, from the data pack or their originals on the hub."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from harness.errors import UsageError
from harness.tasks.images import ImageSettings, ImageTask
from harness.tasks.pack import hub_rows, online

if TYPE_CHECKING:
    import numpy as np


class PackImages(ImageTask):
    """A data set of the pack, or its original on the hub."""

    file: ClassVar[str]
    hub: ClassVar[tuple[str, str | None, str, str]]
    """Hub id, configuration, and the columns of image and label."""

    def images(self) -> dict[str, tuple[Sequence[np.ndarray], Sequence[int]]]:
        """See `ImageTask`.

        Raises:
            UsageError: neither the pack nor the hub is there, or the file is damaged.
        """
        if online():
            import numpy as np

            name, config, image, label = self.hub
            rows = {split: hub_rows(name, config, split) for split in ("train", "test")}
            return {split: ([np.asarray(row[image]) for row in found], [row[label] for row in found])
                    for split, found in rows.items()}  # fmt: skip
        return {split: self.decode(arrays, split) for arrays in [self._arrays()] for split in ("train", "test")}

    def decode(self, arrays: dict[str, np.ndarray], split: str) -> tuple[Sequence[np.ndarray], Sequence[int]]:
        """Images and classes of a split from the arrays of the file."""
        return list(arrays[f"x_{split}"]), [int(number) for number in arrays[f"y_{split}"]]

    def _arrays(self) -> dict[str, np.ndarray]:
        import numpy as np

        name = type(self).__name__.lower()
        path = None if self.data_dir is None else Path(self.data_dir) / self.file
        if path is None or not path.is_file():
            found = "no data pack is given" if self.data_dir is None else f"{str(self.data_dir)!r} has no such file"
            raise UsageError(f"{name} needs {self.file} of the data pack, and {found}: pass --data-dir or set "
                             f"HARNESS_DATA, or set HARNESS_ONLINE=1 to load {self.hub[0]} from the hub")  # fmt: skip
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(f"{name} needs {self.file} of the data pack, and {path} is damaged: {reason}") from None


class MNIST(PackImages):
    """MNIST: handwritten digits (LeCun et al. 1998)."""

    file = "vision/mnist_10k_2k.npz"
    hub = ("ylecun/mnist", None, "image", "label")


class KMNIST(PackImages):
    """Kuzushiji-MNIST: cursive Japanese characters (Clanuwat et al. 2018)."""

    file = "vision/kmnist_8k_2k.npz"
    hub = ("tanganke/kmnist", None, "image", "label")


class FashionMNIST(PackImages):
    """Fashion-MNIST: articles of clothing (Xiao et al. 2017)."""

    file = "vision/fashion_mnist_10k_2k.npz"
    hub = ("zalando-datasets/fashion_mnist", None, "image", "label")


class CIFAR10(PackImages):
    """CIFAR-10: small photographs (Krizhevsky 2009); the pack has JPEG copies."""

    file = "vision/cifar10_jpeg_10k_2k.npz"
    hub = ("uoft-cs/cifar10", None, "img", "label")

    def decode(self, arrays: dict[str, np.ndarray], split: str) -> tuple[Sequence[np.ndarray], Sequence[int]]:
        """See `PackImages`; by Pillow."""
        import numpy as np

        try:
            from PIL import Image
        except ImportError:
            raise UsageError("cifar10 needs Pillow (pip install 'lockbench[vision]')") from None
        packed, ends = arrays[f"jpeg_{split}"].tobytes(), [int(end) for end in arrays[f"off_{split}"]]
        images = [np.asarray(Image.open(io.BytesIO(packed[first:last])).convert("RGB"))
                  for first, last in itertools.pairwise(ends)]  # fmt: skip
        return images, [int(number) for number in arrays[f"y_{split}"]]


class RelearnCIFAR10Settings(ImageSettings):
    """One class of the released model's ten."""

    head: Literal["new", "own"] = "own"
    """The released model's head answers: the forgotten class is one of its own."""
    scored: tuple[int, ...] = (1,)
    """Classes that the released model has been made to forget and the attacker wants back; 1 is automobile."""


class RelearnCIFAR10(CIFAR10):
    """Relearn a class of CIFAR-10 that the released classifier was made to forget."""

    Settings = RelearnCIFAR10Settings
    source_name: ClassVar[str] = "cifar10"
