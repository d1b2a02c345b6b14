"""Draw the validation panel of docs/how-to/watch-a-pretraining.md with the embedded model.

    python scripts/make_training_pictures.py CACHE [--model FOLDER]

CACHE is a latent cache of the shared scans that was written with the model's tokenizer (`meduet-cache
../shared/data --tokenizer src/napari_meduet/models/demo -o CACHE`). The script writes
`docs/images/validation_panel.png`. It shows crops that the model was not trained on.
"""

import argparse
from pathlib import Path

from meduet_training.data.sources.latents import CacheSource
from meduet_training.evaluation.factors.validation import slices_of_crops
from meduet_training.reporting.validation_panel import validation_panel
from napari_meduet.models.folders import demo_model_path
from napari_meduet.models.loading import load_model

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SEED, NUM_CROPS = 2025, 256  # as in a run
COLOURS = 256  # enough for greys, blue and orange, in a small file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path, help="Latent cache.")
    parser.add_argument(
        "--model", type=Path, default=demo_model_path(), help="Model folder. Default: the embedded model."
    )
    parser.add_argument(
        "--output", type=Path, default=IMAGES, help="Folder for the picture. Default: docs/images."
    )
    options = parser.parse_args()
    model = load_model(options.model, "cpu")
    crops = CacheSource(options.cache, SEED).validation_crops(NUM_CROPS, SEED)
    mean, std = model.latents.mean.flatten(), model.latents.std.flatten()
    for shown in slices_of_crops(model.meduet, model.tokenizer, mean, std, crops):
        if shown.modality == "CT":
            panel = validation_panel(shown, f"CT, model {model.card.name}", crops.note)
            panel.quantize(COLOURS).save(options.output / "validation_panel.png", optimize=True)


if __name__ == "__main__":
    main()
