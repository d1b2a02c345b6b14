"""Examples are made once and made again where they are damaged; crops show what was asked for."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import save_phantom, save_tiny_model

from meduet_training.data.caches.training_samples import cache_samples, open_samples
from meduet_training.data.cohort.scans import read_cohort
from meduet_training.data.labels.scans import labelled_scans
from meduet_training.data.labels.task import label_task
from meduet_training.data.sources.labelled_crops import LabelledSource, num_poses
from napari_meduet.core.analysis.finetuning import IGNORED
from napari_meduet.errors import InputError
from napari_meduet.models.loading import load_model

SHAPE = (48, 44, 30)
NAMES = ({"1": "organ", "4": "bone"}, {"4": "bone"})  # nobody looked for an organ in the second scan


def labels_of(number: int) -> np.ndarray:
    """Slabs of organ and bone, by the numbers of a scan."""
    labels = np.zeros(SHAPE, np.int16)
    for place, label in enumerate(NAMES[number]):
        labels[10 * place + 10 : 10 * place + 20] = int(label)
    return labels


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    records = []
    for number, names in enumerate(NAMES):
        path = save_phantom(folder / f"{number}.nii.gz", "CT", number, shape=SHAPE)
        nib.save(nib.Nifti1Image(labels_of(number), nib.load(path).affine), folder / f"{number}_seg.nii.gz")
        records.append(
            {
                "path": path.name, "seg_path": f"{number}_seg.nii.gz", "labels": names, "domain": "site",
                "patient_group": f"patient {number}", "modality": "CT", "split": "train", "licence": "CC0",
                "licence_grade": "A",
            }
        )  # fmt: skip
    (folder / "index.json").write_text(json.dumps(records))
    save_tiny_model(folder / "model")
    scans = labelled_scans(folder, read_cohort(folder))
    task = label_task([scan.names for scan in scans])
    return load_model(folder / "model", "cpu"), scans, task


@pytest.fixture(scope="module")
def cached(given, tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    return folder, cache_samples(*given, (0, 1), folder)


def source_of(given, cached, seed=0):
    return LabelledSource(cached[1], given[2], (8, 8, 8), (4, 4, 4), seed)


def test_an_example_that_is_there_is_kept_and_a_damaged_one_is_made_again(given, cached):
    folder, entries = cached
    times = [entry.path.stat().st_mtime_ns for entry in entries]
    damaged = entries[1].path
    whole = {name: tensor.clone() for name, tensor in load_file(damaged).items()}
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert len(open_samples(*given, (0, 1), folder)) == 3
    told = []
    cache_samples(*given, (0, 1), folder, lambda number, of: told.append((number, of)))
    assert all(torch.equal(tensor, whole[name]) for name, tensor in load_file(damaged).items())
    stayed = [entry.path.stat().st_mtime_ns == before for entry, before in zip(entries, times, strict=True)]
    assert stayed == [True, False, True, True]
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_what_is_made_is_named_after_scan_labels_task_and_pose_and_after_no_patient(given, cached):
    model, scans, task = given
    folder, entries = cached
    assert len({entry.path.name for entry in entries}) == 4
    assert len({entry.scan for entry in entries}) == 2
    joined = label_task([scan.names for scan in scans], {"both": ["organ", "bone"]})
    assert open_samples(model, scans, joined, (0,), folder) == []
    (first,) = scans[0].channels
    tested = replace(scans[0], channels=(replace(first, split="test"),))
    assert open_samples(model, [tested], task, (0,), folder) == entries[:1]
    held = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"patient" not in held
    assert b".nii" not in held


def test_the_example_of_the_own_pose_has_the_labels_of_the_scan(given, cached):
    _, scans, task = given
    example = cached[1][0].open()
    expected = task.meaning(scans[0].names).target(labels_of(0))
    counts = np.bincount(example.target.flatten(), minlength=256)[[1, 2]]
    voxel = (1.2 * 1.2 * 2.5) / 1.5**3
    assert counts == pytest.approx(np.bincount(expected.ravel())[[1, 2]] * voxel, rel=0.1)
    assert example.annotated.tolist() == [True, True, True]
    assert cached[1][2].open().annotated.tolist() == [True, False, True]
    assert cached[1][0].classes == (1, 2)
    for number, places in enumerate(example.places, start=1):
        assert (example.target[tuple(places.T)] == number).all()


def test_a_batch_follows_from_its_step_and_shows_foreground_more_often_than_chance(given, cached):
    source = source_of(given, cached)
    chosen = source.choose(3, 40)
    batch, again = source.read(chosen[:4]), source_of(given, cached).read(source.choose(3, 4))
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert batch["latent"].shape == (4, 4, 8, 8, 8)
    assert batch["latent"].dtype == torch.float32
    targets = source.read(chosen)["target"].flatten(1)
    assert {choice.example for choice in chosen} == {0, 1, 2, 3}
    shows = ((targets != 0) & (targets != IGNORED)).any(dim=1).float().mean()
    assert shows > 0.65
    assert source.num_scans == {"site": 2}


def test_a_source_is_another_with_other_classes_or_scans(given, cached):
    source = source_of(given, cached)
    fewer = LabelledSource(cached[1][:2], given[2], (8, 8, 8), (4, 4, 4), 0)
    task = replace(given[2], labels=(0, 5, 6))
    other = LabelledSource(cached[1], task, (8, 8, 8), (4, 4, 4), 0)
    assert len({each.sha256 for each in (source, fewer, other)}) == 3


def test_few_scans_are_turned_often_and_many_not_at_all():
    assert [num_poses(scans) for scans in (1, 2, 6, 24, 500)] == [12, 12, 8, 2, 1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda image: image.slicer[:-2], r"0_seg\.nii\.gz: the labels measure"),
        (lambda image: type(image)(image.dataobj, 2 * image.affine), "lie elsewhere in space"),
        (lambda image: type(image)(np.asarray(image.dataobj) + 5, image.affine), "holds label 5, 6, 9"),
        (lambda image: type(image)(-np.asarray(image.dataobj), image.affine), "labels are 0 or more"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_used_are_named_with_the_reason(given, tmp_path, change, sentence):
    model, scans, task = given
    path = tmp_path / "0_seg.nii.gz"
    nib.save(change(nib.load(scans[0].labels_path)), path)
    with pytest.raises(InputError, match=sentence):
        cache_samples(model, [replace(scans[0], labels_path=path)], task, (0,), tmp_path / "made")
    assert list((tmp_path / "made").iterdir()) == []


def test_all_labelled_scans_that_cannot_be_used_are_told_at_once_and_the_others_are_done(given, tmp_path):
    model, scans, task = given
    bad = []
    for number in (3, 4):
        path = tmp_path / f"{number}_seg.nii.gz"
        nib.save(nib.load(scans[0].labels_path).slicer[:-2], path)
        bad.append(replace(scans[0], labels_path=path))
    with pytest.raises(
        InputError, match=r"2 of 3 labelled scans cannot be used\. 3_seg.*measure.* 4_seg.*measure"
    ):
        cache_samples(model, [bad[0], scans[0], bad[1]], task, (0,), tmp_path / "made")
    assert len(list((tmp_path / "made").iterdir())) == 1


def test_a_scan_in_which_nothing_was_found_is_learnt_from_all_the_same(given, tmp_path):
    model, scans, task = given
    image = nib.load(scans[0].labels_path)
    path = tmp_path / "0_seg.nii.gz"
    nib.save(type(image)(np.zeros(SHAPE, np.int16), image.affine), path)
    (entry,) = cache_samples(model, [replace(scans[0], labels_path=path)], task, (0,), tmp_path / "made")
    source = LabelledSource([entry], task, (8, 8, 8), (4, 4, 4), 0)
    batch = source.read(source.choose(0, 3))
    assert entry.classes == ()
    assert not batch["target"][batch["target"] != IGNORED].any()
    assert batch["annotated"].all()
