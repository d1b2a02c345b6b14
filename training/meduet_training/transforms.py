"""Style augmentation for other people's MONAI pipelines (specification, section 10, Eqs. 25-27, Table 12).

A dictionary transform on image crops: encode, move the style towards that of another site that the model
knows, decode, and add the difference to the crop. So anatomy stays, labels stay valid, and what no latent
carries is not touched. What trainings here do with latents is `core/analysis/finetuning.py`'s business.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from monai.config.type_definitions import KeysCollection, NdarrayOrTensor
from monai.transforms.transform import MapTransform, RandomizableTransform
from monai.utils.enums import TransformBackends
from monai.utils.type_conversion import convert_to_dst_type, convert_to_numpy

from napari_meduet.core.analysis.style_augmentation import ONE_SHOT, StyleAugmentation, augmented_latent
from napari_meduet.core.sliding_windows import Position, WindowBlend, cut_window, window_positions
from napari_meduet.errors import InputError
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.tokenizers.tiling import decode_tiled, encode_tiled
from napari_meduet.volumes.volume import Modality

WINDOWS_AT_ONCE = 4


class RandStyleAugmentd(RandomizableTransform, MapTransform):
    """Shows crops in the style of another site, all keys in the same; the defaults are Table 12's for 1-shot.

    Crops are channel-first, of one channel, in RAS order on the model's grid (1.5 mm), in Hounsfield units or
    as MR signal, before any other change of intensities. They come back in their own type and on their own
    device. At strength 0, and where nothing is drawn, they come back bit for bit.

    Args:
        keys: of images of one modality; no labels.
        model: the folder of a model that knows styles.
        prob: of being shown in another style.
        strengths: between which the strength is drawn; 1 is all of the other style.
        styles: names of those to draw from; None: all that the model knows of the modality. Leave out that of
            a site that is to stay unseen.
        device: where the networks are; workers of a DataLoader need the CPU.

    Raises:
        ValueError: a number, the model or a style cannot be used; or, when called, a crop cannot.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __init__(
        self,
        keys: KeysCollection,
        model: Path | str,
        prob: float = ONE_SHOT.probability,
        strengths: tuple[float, float] = ONE_SHOT.strengths,
        modality: Modality = "CT",
        styles: Sequence[str] | None = None,
        device: str = "cpu",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.augmentation = StyleAugmentation(probability=prob, strengths=strengths)
        self.model, self.device = Path(model), device
        self.modality: Modality = modality
        self._opened_model: Model | None = None
        known = self._opened().known_styles
        fitting = [name for name, style in known.items() if style.modality == modality]
        for name in styles or ():
            if name not in fitting:
                there_are = ", ".join(fitting) or "none"
                raise ValueError(f"styles: the model knows no {modality} style {name}; it knows {there_are}.")
        self.styles = sorted(fitting if styles is None else styles)
        if not self.styles:
            raise ValueError(f"The model in {self.model.name} knows no {modality} styles to draw from.")
        self._style, self._strength = self.styles[0], 0.0

    def randomize(self, data: Any = None) -> None:
        """Draw whether, which style and how strong; always as many numbers."""
        super().randomize(data)
        self._style = self.styles[int(self.R.randint(len(self.styles)))]
        low, high = self.augmentation.strengths
        self._strength = low + (high - low) * float(self.R.random_sample())

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        self.randomize()
        shown = dict(data)
        if self._do_transform and self._strength > 0:
            for key in self.key_iterator(shown):
                crop = shown[key]
                moved = self._moved(convert_to_numpy(crop), f"{key}")
                shown[key] = convert_to_dst_type(moved, crop)[0]
        return shown

    def _moved(self, crop: np.ndarray, name: str) -> np.ndarray:
        """The crop (1, X, Y, Z) in the style that was drawn."""
        if crop.ndim != 4 or len(crop) != 1:
            raise ValueError(
                f"{name}: a crop is one channel and three axes, (1, X, Y, Z); this one is {crop.shape}. Give "
                "each sequence a key of its own."
            )
        values = crop[0].astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: holds values that are not finite; mend them before this transform.")
        model = self._opened()
        try:
            profile = model.profile_for(values, self.modality)
        except InputError:
            return crop  # MR without contrast: there is no style to see
        units = profile.encode(values)
        prototype = model.known_styles[self._style].statistics.mean.to(model.device)
        change = style_change(model, units, prototype, self._strength)
        new = profile.decode(units + change)
        if np.issubdtype(crop.dtype, np.integer):
            new = np.rint(new)
        moved = crop.copy()
        np.copyto(moved[0], new, where=profile.inside(values) & (change != 0), casting="unsafe")
        return moved

    def _opened(self) -> Model:
        """The model, opened once in each process."""
        if self._opened_model is None:
            self._opened_model = load_model(self.model, self.device)
        return self._opened_model

    def __getstate__(self) -> dict[str, Any]:
        """Without the networks: every worker opens its own."""
        return self.__dict__ | {"_opened_model": None}


@torch.inference_mode()
def style_change(model: Model, units: np.ndarray, prototype: torch.Tensor, strength: float) -> np.ndarray:
    """decode(z_aug) - decode(z) of a crop (X, Y, Z), in profile units. Exactly 0 at strength 0.

    Args:
        prototype: (Ds,), on the model's device.
    """
    size: Position = model.meduet.config.latent_shape[1:]
    missing = [
        max(window, -(-length // token) * token) - length
        for length, window, token in zip(units.shape, model.window_voxels, model.token_voxels, strict=True)
    ]
    amounts = [part for m in reversed(missing) for part in (m // 2, m - m // 2)]
    padded = F.pad(torch.from_numpy(units)[None, None], amounts, mode="replicate")
    own = encode_tiled(model.tokenizer, padded)
    standardised = model.standardised(own)[0]
    x, y, z = standardised.shape[1:]
    positions = window_positions((x, y, z), size)
    blend = WindowBlend(len(standardised), (x, y, z), size)
    for first in range(0, len(positions), WINDOWS_AT_ONCE):
        batch = positions[first : first + WINDOWS_AT_ONCE]
        windows = torch.stack([cut_window(standardised, at, size) for at in batch]).to(model.device)
        rows = prototype.expand(len(batch), -1)
        moved = augmented_latent(model.meduet, windows, rows, torch.full((len(batch),), strength).to(rows))
        for position, step in zip(batch, (moved - windows).float().cpu(), strict=True):
            blend.add(position, step)
    other = own + blend.blended() * model.latents.std
    change = decode_tiled(model.tokenizer, other) - decode_tiled(model.tokenizer, own)
    inner = tuple(slice(m // 2, m // 2 + length) for m, length in zip(missing, units.shape, strict=True))
    return change[0, 0][inner].numpy()
