"""Style augmentation as a MONAI dictionary transform (specification, section 10, Eqs. 25-27, Table 12).

The transform encodes an image crop, moves its style towards that of another site that the model knows,
decodes, and adds the difference to the crop. Therefore the anatomy and the labels stay valid, and details
that the latent cannot represent do not change. The trainings of this package augment latents instead
(core/analysis/style_augmentation.py).
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

WINDOWS_AT_ONCE = 4  # windows in one forward pass


class RandStyleAugmentd(RandomizableTransform, MapTransform):
    """Move the style of crops towards that of another site, the same for all keys.

    The default values are those of Table 12 for one labelled scan. A crop is channel-first with one channel,
    in RAS order on the model's grid (1.5 mm), in Hounsfield units or as MR signal, before any other intensity
    transform. The result has the type and the device of the crop. At strength 0, or if no style is drawn, the
    crop does not change.

    Args:
        keys: keys of images of one modality, without labels.
        model: folder of a model that has known styles.
        prob: probability of another style.
        strengths: lowest and highest strength; 1 is the whole style of the other site.
        modality: modality of the images.
        styles: names of the styles to draw from. None: all styles that the model knows for the modality. Omit
            the style of a site that must stay unseen.
        device: device of the networks. Workers of a DataLoader need "cpu".
        allow_missing_keys: whether a key may be absent.

    Raises:
        ValueError: an argument, the model or a style cannot be used; in a call: a crop cannot be used.

    Examples:
        >>> transform = RandStyleAugmentd("image", model="MODEL_FOLDER", prob=0.5)  # doctest: +SKIP
        >>> augmented = transform({"image": crop, "label": label})  # doctest: +SKIP
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
        self._loaded_model: Model | None = None
        known = self._load_model().known_styles
        of_modality = [name for name, style in known.items() if style.modality == modality]
        for name in styles or ():
            if name not in of_modality:
                available = ", ".join(of_modality) or "none"
                raise ValueError(f"styles: the model knows no {modality} style {name}; it knows {available}.")
        self.styles = sorted(of_modality if styles is None else styles)
        if not self.styles:
            raise ValueError(f"The model in {self.model.name} knows no {modality} styles to draw from.")
        self._style, self._strength = self.styles[0], 0.0

    def randomize(self, data: Any = None) -> None:
        """Draw whether to augment, the style and the strength, with a fixed number of random numbers."""
        super().randomize(data)
        self._style = self.styles[int(self.R.randint(len(self.styles)))]
        low, high = self.augmentation.strengths
        self._strength = low + (high - low) * float(self.R.random_sample())

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        self.randomize()
        result = dict(data)
        if self._do_transform and self._strength > 0:
            for key in self.key_iterator(result):
                crop = result[key]
                augmented = self._augmented(convert_to_numpy(crop), f"{key}")
                result[key] = convert_to_dst_type(augmented, crop)[0]
        return result

    def _augmented(self, crop: np.ndarray, name: str) -> np.ndarray:
        """Return the crop (1, X, Y, Z) in the drawn style."""
        if crop.ndim != 4 or len(crop) != 1:
            raise ValueError(
                f"{name}: a crop is one channel and three axes, (1, X, Y, Z), but this one is {crop.shape}. "
                "Give each sequence a key of its own."
            )
        values = crop[0].astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError(
                f"{name}: this crop has values that are not finite. Replace them before this transform."
            )
        model = self._load_model()
        try:
            profile = model.profile_for(values, self.modality)
        except InputError:
            return crop  # an MR crop without contrast has no style
        normalised = profile.encode(values)
        prototype = model.known_styles[self._style].statistics.mean.to(model.device)
        change = style_change(model, normalised, prototype, self._strength)
        new = profile.decode(normalised + change)
        if np.issubdtype(crop.dtype, np.integer):
            new = np.rint(new)
        result = crop.copy()
        np.copyto(result[0], new, where=profile.inside(values) & (change != 0), casting="unsafe")
        return result

    def _load_model(self) -> Model:
        """Return the model, which is loaded once in each process."""
        if self._loaded_model is None:
            self._loaded_model = load_model(self.model, self.device)
        return self._loaded_model

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the networks, because each worker loads its own."""
        return self.__dict__ | {"_loaded_model": None}


@torch.inference_mode()
def style_change(model: Model, crop: np.ndarray, prototype: torch.Tensor, strength: float) -> np.ndarray:
    """Return decode(z_aug) - decode(z) for a crop (X, Y, Z). It is exactly 0 at strength 0. Eq. (27).

    Args:
        crop: (X, Y, Z), normalised intensity.
        prototype: (Ds,), style of the other site, on the model's device.
        strength: 1 is the whole style of the other site.
    """
    size: Position = model.meduet.config.latent_shape[1:]
    missing = [
        max(window, -(-length // token) * token) - length
        for length, window, token in zip(crop.shape, model.window_voxels, model.token_voxels, strict=True)
    ]
    padding = [part for m in reversed(missing) for part in (m // 2, m - m // 2)]
    padded = F.pad(torch.from_numpy(crop)[None, None], padding, mode="replicate")
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
        for position, change in zip(batch, (moved - windows).float().cpu(), strict=True):
            blend.add(position, change)
    augmented = own + blend.blended() * model.latents.std
    change = decode_tiled(model.tokenizer, augmented) - decode_tiled(model.tokenizer, own)
    inner = tuple(slice(m // 2, m // 2 + length) for m, length in zip(missing, crop.shape, strict=True))
    return change[0, 0][inner].numpy()
