"""What an audit says of one scan, and by what copies of a scan are known."""

import base64
import gzip
import itertools
import os

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from bodies import SIDE, body, save_body, save_dicom
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from tiny import phantom

from meduet_training.data.cohort.audit import Audit, Found
from meduet_training.data.cohort.audit_all import audit_all
from meduet_training.data.cohort.audit_log import AuditLog
from meduet_training.data.cohort.candidates import Candidate
from meduet_training.data.cohort.duplicates import Identity, groups_of_copies
from meduet_training.data.cohort.fingerprint import (
    OTHER_PATIENT,
    SAME_PATIENT,
    distances,
    unpacked,
    volume_hash,
)
from meduet_training.data.cohort.pseudonyms import Pseudonyms, open_salt
from napari_meduet.errors import InputError

PSEUDONYMS = Pseudonyms(b"salt" * 8)
AUDIT = Audit(pseudonyms=PSEUDONYMS, profile="ct-full", tags=())


def candidate(path, **changes) -> Candidate:
    return Candidate(**{"path": path, "domain": "site", "patient": "p"} | changes)


def found(path, audit=AUDIT, **changes) -> Found:
    (record,) = audit(candidate(path, **changes))
    return record


def distance(one: Found | str, other: Found | str) -> float:
    texts = [word.volume_hash if isinstance(word, Found) else word for word in (one, other)]
    bits = [unpacked(text or "")[None].astype(np.float32) for text in texts]
    return float(distances(*bits)[0, 0])


def test_a_sound_scan_is_measured(tmp_path):
    record = found(save_body(tmp_path / "a.nii.gz"))
    assert record.problem is None
    assert (record.modality, record.shape, record.spacing_mm) == ("CT", (SIDE,) * 3, (3.0, 3.0, 3.0))
    assert record.working_shape == (99, 99, 99)  # 49 steps of 3 mm, both ends included
    assert record.clipped == pytest.approx(0.0, abs=1e-4)
    assert Found.from_json(record.as_json()) == record


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("cut.nii.gz", lambda whole: whole[: len(whole) // 2], "cut short"),
        ("flipped.nii.gz", lambda whole: whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:], "checksum"),
        ("empty.nii", lambda whole: b"", "is empty"),
        ("text.nii", lambda whole: b"no scan" * 100, "is not a NIfTI file"),
    ],
)
def test_what_cannot_be_read_is_told_in_the_readers_words(tmp_path, name, content, says):
    whole = save_body(tmp_path / "whole.nii.gz").read_bytes()
    (tmp_path / name).write_bytes(content(whole))
    problem = found(tmp_path / name).problem
    assert problem is not None
    assert problem.startswith(name)
    assert says in problem


def test_what_breaks_a_reader_does_not_end_the_audit(tmp_path, monkeypatch):
    def broken(*words, **options):
        raise KeyError("Doe^Jane")

    monkeypatch.setattr("meduet_training.data.cohort.audit.read_volume", broken)
    assert found(tmp_path / "a.nii").problem == "a.nii: could not be audited (KeyError)."


def test_clipping_by_the_profile_and_before_it_is_told(tmp_path):
    windowed = np.clip(body(0), 0, 80)  # somebody's display window
    assert found(save_body(tmp_path / "a.nii", values=windowed), modality="CT").clipped > 0.2
    whole = save_body(tmp_path / "b.nii")
    assert found(whole, Audit(pseudonyms=PSEUDONYMS, profile="ct-soft", tags=())).clipped < 0.05
    heated = save_body(tmp_path / "c.nii", values=(body(0) * 4 + 1300).astype(np.int16))
    assert found(heated, modality="CT").clipped > 0.05


def test_a_segmentation_is_no_scan(tmp_path):
    values = body(0)
    few = (values > 0).astype(np.uint8)
    regions = (np.indices(values.shape) // 10 * np.array([25, 5, 1])[:, None, None, None]).sum(0)
    for number, labels in enumerate((few, regions.astype(np.uint8))):
        record = found(save_body(tmp_path / f"{number}.nii", values=labels))
        assert "a segmentation, it seems" in (record.problem or "")
    eight_bits = np.clip(values / 2 + 128, 0, 255).astype(np.uint8)
    assert found(save_body(tmp_path / "image.nii", values=eight_bits)).problem is None


def resaved(path, how):
    image = nib.load(path)
    values, affine = np.asarray(image.dataobj), image.affine
    target = path.with_name("copy.nii")
    if how in ("PIR", "RAS"):
        turn = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(how)))
        nib.save(image.as_reoriented(turn), target)
    elif how == "float":
        nib.save(nib.Nifti1Image(values.astype(np.float32) + 0.25, affine), target)
    elif how == "clamped":
        nib.save(nib.Nifti1Image(np.clip(values, -1024, 800), affine), target)
    else:
        target = path.with_name(f"copy{how}")
        sitk.WriteImage(sitk.ReadImage(str(path)), str(target))
    return target


@pytest.mark.parametrize("how", ["PIR", "RAS", "float", "clamped", ".nrrd", ".mha"])
def test_a_copy_shows_the_same(tmp_path, how):
    path = save_body(tmp_path / "a.nii")
    assert distance(found(path), found(resaved(path, how))) < SAME_PATIENT / 2


def test_mr_may_be_scaled_to_bytes(tmp_path):
    signal = phantom("MR", 0, shape=(60, 60, 40))
    bright = save_body(tmp_path / "a.nii", values=signal)
    scaled = save_body(tmp_path / "b.nii", values=(signal / signal.max() * 255).astype(np.uint8))
    assert distance(*(found(path, modality="MR") for path in (bright, scaled))) < SAME_PATIENT


def test_patients_show_other_things(tmp_path):
    records = [found(save_body(tmp_path / f"{seed}.nii", seed)) for seed in range(4)]
    assert min(itertools.starmap(distance, itertools.combinations(records, 2))) > 3 * OTHER_PATIENT


def test_air_shows_nothing_to_compare():
    assert volume_hash(np.zeros((96, 96, 96), np.float32)) is None


def test_on_real_scans_copies_are_near_and_registered_sequences_are_not(shared_data):
    turned = [found(shared_data / "orientations" / f"{order}.nii.gz") for order in ("RAS", "LPS", "SPR")]
    assert max(itertools.starmap(distance, itertools.combinations(turned, 2))) < SAME_PATIENT / 2
    brain = shared_data / "mr-brain-ljubljana-ms3t"
    plain, contrast = (found(brain / f"ms19_{name}.nii.gz", modality="MR") for name in ("T1", "T1c"))
    assert distance(plain, contrast) > 1.5 * SAME_PATIENT  # the nearest of all pairs that are no copies


def identity(number, **changes) -> Identity:
    words = {
        "part": "",
        "patient": f"p{number}",
        "sha256": f"{number}",
        "series_hash": None,
        "volume_hash": None,
    }
    return Identity(path=f"{number}.nii", **words | changes)


def test_copies_are_known_by_series_bytes_or_image(tmp_path):
    hashes = [found(save_body(tmp_path / f"{seed}.nii", seed)).volume_hash for seed in range(2)]
    scans = [
        identity(0, series_hash="u", volume_hash=hashes[0]),
        identity(1, series_hash="v"),
        identity(2, series_hash="u"),
        identity(3, volume_hash=hashes[0]),
        identity(4, volume_hash=hashes[1]),
        identity(5, sha256="1"),
    ]
    assert groups_of_copies(scans) == [[0, 2, 3], [1, 5]]
    assert groups_of_copies(scans[4:]) == groups_of_copies([]) == []


def test_within_one_patient_copies_must_be_nearer():
    rng = np.random.default_rng(0)
    bits = rng.random(2688) < 0.3
    other = bits ^ (rng.random(2688) < 0.028)  # of the set bits about a tenth differs
    one, near = (np.packbits(words).tobytes() for words in (bits, other))
    hashes = [base64.b64encode(words).decode() for words in (one, near)]
    assert SAME_PATIENT < distance(*hashes) < OTHER_PATIENT
    scans = [identity(number, volume_hash=text) for number, text in enumerate(hashes)]
    assert groups_of_copies(scans) == [[0, 1]]
    same = [identity(number, volume_hash=text, patient="p") for number, text in enumerate(hashes)]
    assert groups_of_copies(same) == []


def test_parts_of_one_file_are_no_copies_but_a_file_listed_twice_is():
    channels = [identity(0, part=f"{number}", series_hash="u") for number in range(2)]
    assert groups_of_copies(channels) == []
    assert groups_of_copies([*channels, channels[0]]) == [[0, 2]]


def test_each_series_of_a_dicom_folder_is_found_and_nobody_is_named(tmp_path):
    save_dicom(tmp_path / "export", 1, ConvolutionKernel="B30f", Manufacturer="SIEMENS")
    save_dicom(tmp_path / "export", 2, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    audit = Audit(pseudonyms=PSEUDONYMS, profile="ct-full", tags=("Manufacturer", "ConvolutionKernel"))
    first, second = audit(candidate(tmp_path / "export", patient_in_header=True))
    assert (first.series, first.problem, first.modality) == ("1", None, "CT")
    assert first.tags == {"Manufacturer": "SIEMENS", "ConvolutionKernel": "B30f"}
    assert first.patient == PSEUDONYMS.patient("4711")
    assert second.problem == "export: is a localizer."
    told = str(first.as_json()) + str(second.as_json())
    assert not [word for word in ("Doe", "Jane", "4711", "1.2.3.4.1") if word in told]


def test_a_series_is_known_in_another_place_and_format(tmp_path):
    uid = "1.3.6.1.4.1.14519.5.2.1.6279.6001.17"
    dicom = found(save_dicom(tmp_path / "lidc", 3, SeriesInstanceUID=uid))
    luna = save_body(tmp_path / f"{uid}.nii", 4)
    converted = save_body(tmp_path / "converted.nii.gz", 5)
    (tmp_path / "converted.json").write_text(f'{{"SeriesInstanceUID": "{uid}", "PatientName": "Doe^Jane"}}')
    hashes = {record.series_hash for record in (dicom, found(luna), found(converted))}
    assert len(hashes) == 1
    assert None not in hashes
    assert found(save_body(tmp_path / "1.5mm.v2.nii", 6)).series_hash is None


def test_salt_is_made_once_for_its_owner_alone(tmp_path):
    salt = open_salt(tmp_path / "cohort.salt")
    assert (tmp_path / "cohort.salt").stat().st_mode & 0o777 == 0o600
    assert open_salt(tmp_path / "cohort.salt") == salt != open_salt(tmp_path / "other.salt")
    one, other = Pseudonyms(salt), Pseudonyms(open_salt(tmp_path / "other.salt"))
    assert one.patient("4711") == Pseudonyms(salt).patient("4711") != other.patient("4711")
    assert one.patient("4711") != one.series("4711")
    assert Pseudonyms(salt, keep_ids=True).patient("4711") == "4711"
    (tmp_path / "other.salt").write_text("pepper")
    with pytest.raises(InputError, match=r"other\.salt: is no salt of ours"):
        open_salt(tmp_path / "other.salt")


@pytest.fixture
def audited(monkeypatch):
    """The names of the files that are really read."""
    names = []
    original = Audit.__call__

    def counted(self, chosen):
        names.append(chosen.path.name)
        return original(self, chosen)

    monkeypatch.setattr(Audit, "__call__", counted)
    return names


def test_only_what_is_new_or_changed_is_audited_again(tmp_path, audited):
    paths = [save_body(tmp_path / f"{seed}.nii", seed) for seed in range(3)]
    candidates = [candidate(path) for path in paths]

    def audit(**changes):
        audited.clear()
        asked = Audit(**{"pseudonyms": PSEUDONYMS, "profile": "ct-full", "tags": ()} | changes)
        return audit_all(candidates, asked, AuditLog(tmp_path / "log.jsonl", asked), 1, lambda: None)

    first = audit()
    assert audited == ["0.nii", "1.nii", "2.nii"]
    assert audit() == first
    assert audited == []
    save_body(paths[1], 7)
    os.utime(paths[1], (1, 1))
    assert audit()[1] != first[1]
    assert audited == ["1.nii"]
    paths[0].unlink()
    assert "cannot be opened" in (audit()[0][0].problem or "")
    audit(profile="ct-soft")
    assert audited == ["0.nii", "1.nii", "2.nii"]


def test_what_a_kill_cut_off_is_audited_again(tmp_path, audited):
    candidates = [candidate(save_body(tmp_path / f"{seed}.nii", seed)) for seed in range(2)]
    log = tmp_path / "log.jsonl"
    whole = audit_all(candidates, AUDIT, AuditLog(log, AUDIT), 1, lambda: None)
    log.write_bytes(log.read_bytes()[:-40])
    audited.clear()
    assert audit_all(candidates, AUDIT, AuditLog(log, AUDIT), 1, lambda: None) == whole
    assert audited == ["1.nii"]


def test_processes_find_what_one_finds(tmp_path):
    candidates = [candidate(save_body(tmp_path / f"{seed}.nii.gz", seed)) for seed in range(3)]
    (tmp_path / "bad.nii.gz").write_bytes(gzip.compress(b"nothing"))
    candidates.append(candidate(tmp_path / "bad.nii.gz"))
    done = []
    alone = audit_all(candidates, AUDIT, AuditLog(tmp_path / "a", AUDIT), 1, lambda: None)
    several = audit_all(candidates, AUDIT, AuditLog(tmp_path / "b", AUDIT), 2, lambda: done.append(1))
    assert several == alone
    assert len(done) == 4
