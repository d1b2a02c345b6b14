"""Draw what a pretraining shows of itself, for docs/how-to/watch-a-pretraining.md, from the embedded model.

    python scripts/make_training_pictures.py CACHE [--model FOLDER]

CACHE is a latent cache of the shared scans that the model's tokenizer wrote (`meduet-cache ../shared/data
--tokenizer src/napari_meduet/models/demo -o CACHE`). Writes `docs/images/validation_panel.png`, of crops that
the model was not trained on; nothing is retouched.
"""

import argparse
from pathlib import Path

from meduet_training.data.sources.latents import CacheSource
from meduet_training.evaluation.factors.validation import slices_of_crops
from meduet_training.reporting.validation_panel import validation_panel
from napari_meduet.models.folders import demo_model_path
from napari_meduet.models.loading import load_model

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SEED, NUM_CROPS = 2025, 256  # as a run chooses its crops
COLOURS = 256  # of the picture: greys, blue and orange need no more, and it stays small


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--model", type=Path, default=demo_model_path())
    parser.add_argument("--output", type=Path, default=IMAGES)
    options = parser.parse_args()
    model = load_model(options.model, "cpu")
    crops = CacheSource(options.cache, SEED).validation_crops(NUM_CROPS, SEED)
    mean, std = model.latent_mean.flatten(), model.latent_std.flatten()
    for shown in slices_of_crops(model.meduet, model.tokenizer, mean, std, crops):
        if shown.modality == "CT":
            panel = validation_panel(shown, f"CT, the embedded model {model.card.name}", crops.note)
            panel.quantize(COLOURS).save(options.output / "validation_panel.png", optimize=True)


if __name__ == "__main__":
    main()
