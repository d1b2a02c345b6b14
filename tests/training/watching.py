"""Crops, a small objective and step records for tests of the run logger, without a training."""

import torch
from small import WAVELET, network

from meduet_training.data.sources.validation_crops import ValidationCrops
from meduet_training.engine.callbacks import StepRecord
from meduet_training.reporting.card import RunCard, RunData
from meduet_training.reporting.run_logger import PretrainingValidation, RunLogger
from napari_meduet.core.objective import Objective, ObjectiveConfig
from napari_meduet.tokenizers.wavelet import WaveletTokenizer

STEPS = 61
BATCH = 8


def crops(count: int = 24, modality: str | None = "CT") -> ValidationCrops:
    """Return crops of three domains with two patients each. A domain is an offset of the latent."""
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(count, 4, 8, 8, 8, generator=generator)
    domains = [f"site {number % 3}" for number in range(count)]
    latent += torch.tensor([float(name[-1]) for name in domains]).view(-1, 1, 1, 1, 1)
    return ValidationCrops(
        latent=latent,
        coverage=torch.ones(count, 8),
        domains=tuple(domains),
        patients=tuple(f"patient {number % 6}" for number in range(count)),
        modalities=(modality,) * count,
        note="Crops for tests.",
    )


def objective(seed: int = 0) -> Objective:
    torch.manual_seed(seed)
    return Objective(network(num_domains=3), ObjectiveConfig.corrected(total_steps=STEPS)).eval()


def tokenizer() -> WaveletTokenizer:
    torch.manual_seed(0)
    return WaveletTokenizer(WAVELET).eval()


def card(name: str = "run") -> RunCard:
    return RunCard(
        run=name,
        total_steps=STEPS,
        config={"batch": BATCH, "objective": {"pairing": "random"}},
        data=RunData(
            sha256="d" * 64,
            domains=["site 0", "site 1", "site 2"],
            latent_shape=[4, 8, 8, 8],
            tokenizer_sha256="e" * 64,
            validation=crops().counts(),
            validation_note=crops().note,
        ),
    )


def watch(folder, **changes) -> RunLogger:
    folder.mkdir(exist_ok=True)
    validation = PretrainingValidation(crops(), tokenizer(), torch.zeros(4), torch.ones(4))
    options = {"batch": BATCH, "seed": 0, "processes": 1, "validation": validation} | changes
    return RunLogger(folder, card(folder.name), lambda step, loss: None, **options)


def record(step: int, total: float | None = None) -> StepRecord:
    """Return a record whose losses encode the step. A step takes 0.25 s, of which it waits 10 % for data."""
    return StepRecord(
        step=step,
        losses={
            "total": torch.tensor(100.0 - step if total is None else total, requires_grad=True),
            "domain": torch.tensor(step / 2),
        },
        learning_rate=1e-3 * (step + 1),
        gradient_norm=torch.tensor(float(step)),
        feature_norms={"content": torch.tensor(2.0), "style": torch.tensor(3.0)},
        step_seconds=0.25,
        data_wait_seconds=0.025,
    )


def run(folder, first: int = 0, last: int = STEPS - 1, validate_after: tuple[int, ...] = ()) -> RunLogger:
    """Return a run logger that has received the steps `first` to `last` and is still open."""
    looking = watch(folder)
    for step in range(first, last + 1):
        looking.on_step(record(step))
        if step + 1 in validate_after:
            looking.on_validation(step + 1, objective())
    return looking
