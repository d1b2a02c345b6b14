"""The configuration of a run from preset, file and command line, and messages for wrong input."""

import pytest
import yaml

from meduet_training.runtime.fabric import _started_by
from meduet_training.tasks.config import CONFIG, merged, parse_settings, write_run_config
from meduet_training.tasks.pretraining.presets import base, small
from meduet_training.tasks.pretraining.task import PRETRAINING
from napari_meduet.core.objective import ObjectiveConfig
from napari_meduet.core.pretexts.masked import MaskedConfig
from napari_meduet.core.pretexts.masked_diffusion import MaskedDiffusionConfig
from napari_meduet.core.pretexts.residual_unet import ResidualUNetConfig
from napari_meduet.errors import InputError

DATA = {"data": {"windows": "windows.safetensors", "tokenizer": "tokenizer"}}


def config(*settings: str, path=None, **said):
    return PRETRAINING.read(path, merged(DATA | said, parse_settings(list(settings))))


def test_a_file_goes_over_the_preset_and_the_command_line_over_both(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"preset": "small", "training": {"batch": 16, "clip": 0.5}}))
    training = config("training.batch=8", "training.objective.pairing=random", path=path).training
    assert (training.batch, training.clip, training.objective.pairing) == (8, 0.5, "random")
    assert training.network == small().network
    assert training.learning_rate == small().learning_rate


@pytest.mark.parametrize(
    "said", [{}, {"preset": "base", "objective": "paper"}, {"pretext": "mae"}, {"pretext": "mdae"}], ids=str
)
def test_the_stored_configuration_is_the_same(tmp_path, said):
    before = config("hardware.strategy=fsdp", "trainer.keep=5", **said)
    write_run_config(before, tmp_path)
    assert PRETRAINING.read(tmp_path / CONFIG, {}) == before
    assert set(yaml.safe_load((tmp_path / CONFIG).read_text())["training"]) > {"learning_rate", "seed"}


def test_the_papers_words_and_the_other_pretexts():
    steps = base().objective.total_steps
    assert config(preset="base", objective="paper").training.objective == ObjectiveConfig.paper()
    masked = config(preset="base", pretext="mae").training
    assert masked.objective == MaskedConfig(total_steps=steps)
    assert masked.network == base().network
    voxels = config(preset="base", pretext="mdae-voxel", data=None).training
    assert voxels.network == ResidualUNetConfig()
    assert voxels.objective == MaskedDiffusionConfig(total_steps=steps)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("training.objective.pairings=flip", "no option training.objective.pairings; did you mean pairing?"),
        ("traning.batch=3", "there is no option traning; did you mean training?"),
        ("training.network.widht=3", "there is no option training.network.widht; did you mean width?"),
        ("hardware.gpus=3", "there is no option hardware.gpus; there are device, precision,"),
        ("training.objective.pairing=some", "pairing cannot be 'some': input should be 'flip', 'random' or"),
        ("training.batch=3", "must be even and at least 2; got 3"),
        ("training.batch=many", "training.batch cannot be 'many'"),
        ("training.network.width=25", "width must be a multiple of its 6 attention heads; got 25"),
        ("training=3", "training cannot be 3"),
        ("preset=[tiny]", "preset cannot be ['tiny']"),
        ("hardware.workers=-1", "workers is a number of processes, 0 or more; got -1"),
        ("hardware.accumulate=0", "accumulate is the number of parts of a batch, at least 1; got 0"),
        ("hardware.timeout_s=0", "a number of seconds above 0"),
        ("trainer.keep=0", "keep must be at least 1; got 0"),
        ("data.cache=latents", "Give one of --cache"),
        ("data.tokenizer=null", "Give --tokenizer"),
        ("pretext=mdae-voxel", "mdae-voxel learns from scans, not from latents: give --data"),
        ("training.batch", "--set training.batch: give a name and a value"),
        ("training..batch=3", "give a name and a value"),
        ("training.batch=[", "--set training.batch=[: no YAML"),
    ],
)  # fmt: skip
def test_a_message_names_the_option_as_the_file_does(setting, sentence):
    with pytest.raises(InputError) as refusal:
        config(setting)
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("preset: [", "mine.yaml: no YAML, line 1"),
        ("- preset", "mine.yaml: no configuration; it should begin with names"),
        ("batch: 4", "mine.yaml: there is no option batch"),
        (None, "mine.yaml: the configuration cannot be read (No such file"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text, sentence):
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as refusal:
        config(path=path)
    assert sentence in str(refusal.value)


def test_nothing_in_a_file_is_run(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("preset: !!python/object/apply:os.system ['true']")
    with pytest.raises(InputError, match="no YAML"):
        PRETRAINING.read(path, DATA)


@pytest.mark.parametrize(
    ("variables", "processes"),
    [
        ({}, (1, 1)),
        ({"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, (4, 2)),
        ({"SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3"}, (4, 2)),
        ({"SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_PROCID": "0"}, (1, 1)),  # sbatch without srun
    ],
    ids=["alone", "torchrun", "srun", "sbatch"],
)
@pytest.mark.filterwarnings("ignore:The .srun. command")  # SLURM is installed, the tests not started by it
def test_the_launcher_is_detected(variables, processes):
    assert _started_by(variables)[1:] == processes
