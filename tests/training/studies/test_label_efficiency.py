"""`meduet-train label-efficiency`: whom it learns from, what it compares, how it goes on, what it refuses."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import yaml
from tiny import save_phantom, save_tiny_model
from typer.testing import CliRunner

from meduet_training.commands.train import app
from meduet_training.data.cohort.scans import read_cohort
from meduet_training.data.sources.labelled_crops import LabelledSource
from meduet_training.studies.label_efficiency import segmentation
from meduet_training.studies.label_efficiency.gains import over_seeds, paired_gain
from meduet_training.studies.label_efficiency.runner import plan_runs
from meduet_training.studies.label_efficiency.subsets import Subset, parse_subsets, sample_subsets
from meduet_training.studies.label_efficiency.tables import FinishedRun, Study, as_data, as_markdown
from meduet_training.tasks.classifier.run import requested_classes
from meduet_training.tasks.classifier.task import CLASSIFIER
from meduet_training.tasks.finetuning.config import FinetuningData
from meduet_training.tasks.finetuning.requested_scans import requested_scans
from meduet_training.tasks.segmenter import presets as recipes
from napari_meduet.errors import InputError

ONE, HALF, ALL = Subset(fraction=None), Subset(fraction=0.5), Subset(fraction=1.0)


# Draws


def everything(patient):
    return {"organ", "bone"}


def test_each_subset_holds_the_smaller_ones():
    patients = [f"patient {number}" for number in range(20)]
    for seed in range(5):
        draw = sample_subsets(patients, ["organ", "bone"], everything, seed)
        one, tenth, half, whole = (draw.of(subset) for subset in parse_subsets("one,10,50,100"))
        assert [len(each) for each in (one, tenth, half, whole)] == [1, 2, 10, 20]
        assert set(one) < set(tenth) < set(half) < set(whole) == set(patients)


def test_a_seed_draws_the_same_patients_whoever_comes_first_and_another_seed_draws_others():
    patients = [f"patient {number}" for number in range(20)]
    draws = [sample_subsets(patients, ["organ"], everything, seed).of(ONE) for seed in range(10)]
    assert len(set(draws)) > 3
    backwards = sample_subsets(patients[::-1], ["organ"], everything, seed=0)
    assert backwards.of(HALF) == sample_subsets(patients, ["organ"], everything, seed=0).of(HALF)


def test_one_shot_is_a_patient_for_each_class():
    shown = {"a": {"organ"}, "b": {"bone"}, "c": {"organ"}, "d": {"organ"}}
    for seed in range(8):
        draw = sample_subsets([*shown], ["organ", "bone"], shown.__getitem__, seed)
        first, second = (shown[name] for name in draw.of(ONE))
        assert first | second == {"organ", "bone"}
    with_two = sample_subsets(["a", "c", "d"], ["organ"], shown.__getitem__, seed=0, patients_per_class=2)
    assert len(with_two.of(ONE)) == 2


def test_half_a_patient_counts_as_one():
    draw = sample_subsets(["a", "b", "c"], ["organ"], everything, seed=0)
    assert len(draw.of(HALF)) == 2  # 1.5


def test_a_class_that_nobody_shows_is_named():
    with pytest.raises(InputError, match="bone: no patient"):
        sample_subsets(["a", "b"], ["organ", "bone"], lambda patient: {"organ"}, seed=0)


@pytest.mark.parametrize("words", ["", "two", "one,0", "101", "10,10", "nan", "one,-5"])
def test_subsets_that_cannot_be_are_refused(words):
    with pytest.raises(InputError, match="--subsets"):
        parse_subsets(words)


def test_subsets_are_sorted_and_may_have_percent_signs():
    assert parse_subsets("100, 50%,one") == [ONE, HALF, ALL]


# Gains


def test_a_gain_is_the_mean_difference_of_runs_of_one_seed():
    ours, scratch = {1: 0.5, 2: 0.9, 3: 0.4}, {1: 0.3, 2: 0.8, 4: 0.9}
    gain = paired_gain(ours, scratch, seed=0)
    assert gain.value == pytest.approx((0.2 + 0.1) / 2)  # seeds 1 and 2: the others have no pair
    assert (gain.num_samples, gain.num_patients) == (2, 2)
    assert gain.low == pytest.approx(0.1)  # both draws were seed 2: a quarter of all draws
    assert gain.high == pytest.approx(0.2)


def test_what_the_draw_does_to_both_arms_cancels():
    scratch = {seed: 0.1 * seed for seed in range(8)}
    ours = {seed: value + 0.05 for seed, value in scratch.items()}
    gain = paired_gain(ours, scratch, seed=0)
    assert gain.low == pytest.approx(0.05) == gain.high
    alone = over_seeds(ours, seed=0)
    assert alone.high - alone.low > 0.2


def test_without_a_seed_in_common_there_is_no_gain():
    assert paired_gain({1: 0.5}, {2: 0.4}, seed=0) is None


def study(*runs):
    finished = [
        FinishedRun(seed=seed, arm=arm, subsets=subsets, num_patients=count, scores={"Dice": dice})
        for seed, arm, subsets, count, dice in runs
    ]
    about = {"model": "m", "classes": ["organ"]}
    arms = ("scratch", "meduet", "meduet+style")
    return Study(about=about, metrics=("Dice",), arms=arms, subsets=(ONE, ALL)).with_runs(finished)


def test_gains_of_every_arm_over_those_before_are_told():
    found = study(
        (1, "scratch", (ONE,), 1, 0.5),
        (1, "meduet", (ONE,), 1, 0.6),
        (1, "meduet+style", (ONE,), 1, 0.8),
        (1, "scratch", (ALL,), 4, 0.9),
    )
    gains = {(gain["arm"], gain["over"]): gain["value"] for gain in as_data(found)["gains"]}
    assert gains == {
        ("meduet", "scratch"): pytest.approx(0.1),
        ("meduet+style", "scratch"): pytest.approx(0.3),
        ("meduet+style", "meduet"): pytest.approx(0.2),
    }
    page = as_markdown(found)
    assert "| 1-shot | 1 | meduet+style | 1 | 0.800 |" in page
    assert "| 1-shot | meduet | scratch | 1 | +0.100 |" in page  # one seed has no interval
    assert "| 100 % | 4 | scratch | 1 | 0.900 |" in page


class TwoPatients:
    """Enough of a `StudyTask` to plan its runs."""

    patients, classes, patients_per_class = ("a", "b"), ("organ",), 1
    base = SimpleNamespace(training=SimpleNamespace(seed=7))

    def classes_of(self, patient):
        return {"organ"}


def test_subsets_of_the_same_patients_are_one_run():
    planned = plan_runs(TwoPatients(), parse_subsets("one,10,50,100"), ["scratch", "meduet"], 2)
    few, both = parse_subsets("one,10,50"), parse_subsets("100")
    assert [(run.seed, run.arm, list(run.subsets), len(run.patients)) for run in planned] == [
        (seed, arm, subsets, count)
        for seed in (7, 8)
        for subsets, count in ((few, 1), (both, 2))
        for arm in ("scratch", "meduet")
    ]
    assert str(planned[0].folder) == str(Path("runs/seed-7/patients-0001/scratch"))


def test_a_run_answers_for_every_subset_of_the_same_patients():
    found = study((1, "scratch", (ONE, ALL), 1, 0.5))
    assert [mean["subset"] for mean in as_data(found)["means"]] == ["one", "100"]


# Unseen domains


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A model, labelled scans of two sites, one patient in both; a site of MR."""
    folder = tmp_path_factory.mktemp("given")
    save_tiny_model(folder / "model", depth=4)  # a UNETR taps four blocks
    records = []
    for number, (site, patient, split) in enumerate(
        [("a", 0, "train"), ("a", 1, "train"), ("b", 1, "train"), ("b", 2, "test"), ("a", 3, "test")]
    ):
        image = nib.load(save_phantom(folder / f"{number}.nii.gz", "CT", number, shape=(36, 34, 20)))
        values = np.asarray(image.dataobj)
        labels = np.where(values > 1200, 2, np.where(values > -300, 1, 0)).astype(np.uint8)
        nib.save(nib.Nifti1Image(labels, image.affine), folder / f"{number}_seg.nii.gz")
        records.append(
            {
                "path": f"{number}.nii.gz",
                "seg_path": f"{number}_seg.nii.gz",
                "labels": {"1": "body", "2": "bone"},
                "domain": f"site {site}",
                "patient_group": f"patient {patient}",
                "modality": "CT",
                "sequence": None,
                "split": split,
                "licence": "CC0",
                "licence_grade": "A",
            }
        )
    (folder / "index.json").write_text(json.dumps(records))
    return folder


def test_an_unseen_domain_is_the_test_and_none_of_its_patients_is_learnt_from(given):
    data = FinetuningData(model=given / "model", scans=given, unseen=("site b",))
    scans = requested_scans(read_cohort(given), data)
    assert [(scan.path.name, scan.split) for scan in scans] == [
        ("0.nii.gz", "train"),  # 1 is of a patient whom site b knows, 4 is a test of site a
        ("2.nii.gz", "test"),
        ("3.nii.gz", "test"),
    ]


def test_a_domain_that_is_misspelt_is_told(given):
    data = FinetuningData(model=given / "model", scans=given, unseen=("site B",))
    with pytest.raises(InputError, match="did you mean site b"):
        requested_scans(read_cohort(given), data)


# The command


def narrow(patch):
    """`tiny`, tinier."""
    whole = recipes.tiny()
    network = replace(whole.network, features=8)
    patch.setitem(recipes.PRESETS, "tiny", lambda: replace(whole, network=network))


@pytest.fixture(autouse=True)
def narrow_preset(monkeypatch):
    narrow(monkeypatch)


def call(given, output, *more):
    words = ["label-efficiency", "--model", given / "model", "--data", given, "--cache", given / "made"]
    words += ["-o", output, "--steps", 1, "--device", "cpu", "--set", "hardware.workers=0", *more]
    return CliRunner().invoke(app, [str(word) for word in words])


OPTIONS = ["--subsets", "one", "--seeds", 1, "--arms", "scratch,meduet"]


@pytest.fixture(scope="module")
def finished(given, tmp_path_factory):
    """A study of two arms, one shot, one seed; and what was said."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        narrow(patch)
        done = call(given, folder, *OPTIONS)
    assert done.exit_code == 0, done.output
    return folder, done


def test_every_arm_is_trained_on_the_same_crops_and_judged_on_the_test_patients(finished):
    folder, done = finished
    found = json.loads((folder / "results.json").read_text())
    assert [(run["arm"], run["num_patients"], run["subsets"]) for run in found["runs"]] == [
        ("scratch", 1, ["one"]),
        ("meduet", 1, ["one"]),
    ]
    assert all(set(run["scores"]) >= {"Dice", "NSD", "Dice: body", "NSD: body"} for run in found["runs"])
    assert found["about"]["test_patients"] == 2
    assert len(found["about"]["model_sha256"]) == 64
    assert {(gain["arm"], gain["over"]) for gain in found["gains"]} == {("meduet", "scratch")}
    assert done.stdout == (folder / "results.md").read_text()  # and nothing else
    assert "nsd tolerance mm: 3" in done.stdout
    assert (folder / "label_efficiency.png").read_bytes().startswith(b"\x89PNG")
    configs = [
        yaml.safe_load((folder / "runs/seed-2025/patients-0001" / arm / "config.yaml").read_text())
        for arm in ("scratch", "meduet")
    ]
    assert [config.pop("start") for config in configs] == ["scratch", "meduet"]
    assert [config["training"].pop("start") for config in configs] == ["scratch", "meduet"]
    for config in configs:
        del config["training"]["objective"]["encoder_rate"]  # goes with the start
    assert configs[0] == configs[1]  # nothing else differs
    assert len(configs[0]["data"]["patients"]) == 1
    assert "patient 0" not in json.dumps(configs) + done.output


def test_a_finished_study_trains_nothing_again_and_grows_by_an_arm(given, finished, monkeypatch):
    folder, _ = finished
    before = json.loads((folder / "results.json").read_text())
    trained = []

    def train(run, place):
        trained.append((run.start, run.styles, run.patience, run.training.seed))
        place.mkdir(parents=True)
        shutil.copy(folder / "runs/seed-2025/patients-0001/scratch/results.json", place)

    monkeypatch.setattr(segmentation, "run_segmenter", train)
    again = call(given, folder, *OPTIONS)
    assert again.exit_code == 0, again.output
    assert trained == []
    assert json.loads((folder / "results.json").read_text()) == before
    monkeypatch.setattr(segmentation, "style_bank", lambda *those: None)  # the model knows no styles
    grown = call(given, folder, "--subsets", "one", "--seeds", 1)
    assert grown.exit_code == 0, grown.output
    assert trained == [("meduet", "auto", 0, 2025)]
    assert "Run 3 of 3: seed 2025, 1-shot (1 patient), meduet+style." in grown.stderr


def test_a_signal_ends_the_study_and_the_same_command_goes_on(given, tmp_path, monkeypatch):
    options = ["--subsets", "one", "--seeds", 1, "--arms", "meduet", "--steps", 2]
    with monkeypatch.context() as patch:
        choose = LabelledSource.choose

        def choose_and_be_told_to_end(self, step, count):
            if step == 0:
                signal.raise_signal(signal.SIGINT)
            return choose(self, step, count)

        patch.setattr(LabelledSource, "choose", choose_and_be_told_to_end)
        stopped = call(given, tmp_path, *options)
    assert stopped.exit_code == 130
    assert "Stopped after step 1 of 2; the same command goes on from there." in stopped.output
    assert not (tmp_path / "results.json").exists()
    done = call(given, tmp_path, *options)
    assert done.exit_code == 0, done.output
    assert len(json.loads((tmp_path / "results.json").read_text())["runs"]) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--arms", "scratch,medut"], "unknown arm 'medut'; did you mean meduet?"),
        (["--arms", "scratch,scratch"], "each arm once"),
        (["--subsets", "few"], "'few' is not a subset"),
        (["--unseen", "site c"], "no scan is of the domain site c"),
        (["--set", "start=scratch"], "start is set by the arms and subsets"),
        (["--set", "data.patients=[a]"], "data.patients is set by the arms and subsets"),
        (["--set", "data.classes=[liver]"], "no scan to train on has labels called liver"),
        ([], "knows no styles of CT"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(given, tmp_path, options, sentence):
    done = call(given, tmp_path / "study", *options)
    assert done.exit_code == 2
    assert sentence in done.output
    assert not (tmp_path / "study").exists()


def test_the_folder_of_another_study_is_refused(given, finished):
    folder, _ = finished
    done = call(given, folder, "--arms", "scratch", "--subsets", "one", "--set", "training.batch=3")
    assert done.exit_code == 2
    assert "another study, which differs in training.batch" in done.output


# Classification


@pytest.fixture(scope="module")
def sorted_scans(tmp_path_factory):
    """A model, and scans of two classes: three patients of each to learn from, one of each to judge by."""
    folder = tmp_path_factory.mktemp("classes")
    save_tiny_model(folder / "model")
    records = []
    for diagnosis, modality in (("lung", "CT"), ("brain", "MR")):
        for number, split in enumerate(["train", "train", "train", "test"]):
            name = f"{diagnosis}{number}.nii.gz"
            save_phantom(folder / name, modality, number, shape=(36, 34, 20))
            records.append(
                {
                    "path": name, "domain": f"site {number % 2}", "patient_group": name,
                    "modality": modality, "sequence": None, "split": split, "licence": "CC0",
                    "licence_grade": "A", "diagnosis": diagnosis,
                }
            )  # fmt: skip
    (folder / "index.json").write_text(json.dumps(records))
    return folder


def classify(scans, output, *more):
    words = ["label-efficiency", "--task", "classification", "--model", scans / "model", "--data", scans]
    words += ["--cache", scans / "made", "-o", output, "--steps", 1, "--batch", 4, "--device", "cpu"]
    words += ["--set", "hardware.workers=0", "--subsets", "one", "--seeds", 1, "--arms", "scratch", *more]
    return CliRunner().invoke(app, [str(word) for word in words])


def test_classes_of_scans_take_two_patients_each_of_whom_one_watches(sorted_scans, tmp_path):
    done = classify(sorted_scans, tmp_path, "--target", "diagnosis")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "results.json").read_text())
    assert [run["num_patients"] for run in found["runs"]] == [4]
    assert set(found["runs"][0]["scores"]) == {"AUC", "balanced accuracy"}
    assert found["about"]["task"] == "classification of diagnosis"


def test_an_unseen_domain_is_left_to_the_test_of_a_classifier(sorted_scans):
    data = {"model": sorted_scans / "model", "scans": sorted_scans, "target": "diagnosis"}
    run = CLASSIFIER.read(None, {"data": data | {"unseen": ["site 1"]}})
    _, classified = requested_classes(run)
    splits = [(each.scan.path.name, each.scan.split) for each in classified]
    assert splits == [
        (f"{name}{number}.nii.gz", split)
        for name in ("lung", "brain")
        for number, split in enumerate(["train", "test", "train", "test"])
    ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--target", "diagnoses"], "did you mean diagnosis"),
        ([], "data.target is missing"),
        (["--target", "modality", "--unseen", "site 0", "--modality", "CT"], "one class alone"),
    ],
)
def test_a_classification_that_cannot_be_is_refused(sorted_scans, tmp_path, options, sentence):
    done = classify(sorted_scans, tmp_path / "study", *options)
    assert done.exit_code == 2
    assert sentence in done.output
