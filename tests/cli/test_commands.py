"""The commands, as people and scripts use them: exit codes, one sentence per error, nothing half-written."""

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from napari_meduet import __version__
from napari_meduet.cli import app

run_here = CliRunner()


def meduet(*words):
    return run_here.invoke(app, [str(word) for word in words])


def in_a_process(*words, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "napari_meduet.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def refused(result) -> str:
    """The one sentence of a refusal."""
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert "Traceback" not in result.output
    return lines[0]


def test_swap_writes_a_volume_and_its_sidecar(tiny_model, smooth_ct, noisy_ct, tmp_path):
    output = tmp_path / "out.nii.gz"
    result = meduet("swap", smooth_ct, noisy_ct, "-o", output, "--model", tiny_model, "--strength", 0.5)
    assert result.exit_code == 0, result.output
    assert result.stdout.split(":")[0] in {"pass", "check", "refuse"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.nii.gz"]
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["parameters"]["strength"] == 0.5
    assert nib.load(output).shape == nib.load(smooth_ct).shape


def test_a_prototype_takes_the_place_of_a_scan(tiny_model, smooth_ct, noisy_ct, tmp_path):
    style, output = tmp_path / "site.style", tmp_path / "out.nii.gz"
    assert meduet("prototype", noisy_ct, smooth_ct, "-o", style, "--model", tiny_model).exit_code == 0
    result = meduet("swap", smooth_ct, style, "-o", output, "--model", tiny_model)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out.json").read_text())["parameters"]["style_scans"] == 2


def test_roundtrip_prints_decibels(tiny_model, smooth_ct, tmp_path):
    output = tmp_path / "back.nii.gz"
    result = meduet("roundtrip", smooth_ct, "-o", output, "--model", tiny_model, "--through", "meduet")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if "PSNR" in line]
    assert [line.split("PSNR")[0].strip() for line in lines] == [
        "1.5 mm grid, profile units",
        "1.5 mm grid, HU",
        "own grid, profile units",
        "own grid, HU",
    ]


def test_extract_writes_factors(tiny_model, smooth_ct, tmp_path):
    output = tmp_path / "factors.safetensors"
    assert meduet("extract", smooth_ct, "-o", output, "--model", tiny_model).exit_code == 0
    assert (tmp_path / "factors.json").is_file()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["swap", "CONTENT", "STYLE", "-o", "OUT.txt"], "--output must end in .nii.gz"),
        (["swap", "CONTENT", "STYLE", "-o", "missing/OUT.nii.gz"], "folder does not exist"),
        (["swap", "CONTENT", "STYLE", "-o", "CONTENT"], "one of the inputs"),
        (["swap", "CONTENT", "STYLE", "-o", "OUT.nii.gz", "--strength", "9"], "strength"),
        (["swap", "CONTENT", "STYLE", "-o", "OUT.nii.gz", "--model", "."], "card.json"),
        (["swap", "CONTENT", "nothing.nii.gz", "-o", "OUT.nii.gz"], "nothing.nii.gz"),
        (["swap", "CONTENT", "nothing.style", "-o", "OUT.nii.gz"], "nothing.style"),
        (["swap", "CONTENT", "MR", "-o", "OUT.nii.gz"], "content is CT and the style is MR"),
        (["extract", "CONTENT", "-o", "OUT.npz"], "--output must end in .safetensors"),
        (["prototype", "CONTENT", "MR", "-o", "OUT.style"], "scan 2 is MR"),
        (["roundtrip", "nothing.nii.gz", "-o", "OUT.nii.gz"], "nothing.nii.gz"),
        (["info", "nothing.nii.gz"], "nothing.nii.gz"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(
    tiny_model, smooth_ct, noisy_ct, mr, tmp_path, monkeypatch, words, named
):
    monkeypatch.chdir(tmp_path)
    places = {"CONTENT": smooth_ct, "STYLE": noisy_ct, "MR": mr}
    words = [places.get(word, word) for word in words]
    if words[0] != "info" and "--model" not in words:
        words += ["--model", tiny_model]
    before = smooth_ct.read_bytes()
    assert named in refused(meduet(*words))
    assert list(tmp_path.iterdir()) == []
    assert smooth_ct.read_bytes() == before


def test_an_output_that_exists_is_kept_unless_asked(tiny_model, smooth_ct, noisy_ct, tmp_path):
    output = tmp_path / "out.nii.gz"
    words = ["swap", smooth_ct, noisy_ct, "-o", output, "--model", tiny_model, "--strength", 0]
    output.write_text("precious")
    assert "exists" in refused(meduet(*words))
    assert output.read_text() == "precious"
    assert meduet(*words, "--overwrite").exit_code == 0
    assert nib.load(output).shape == nib.load(smooth_ct).shape

    (tmp_path / "out.nii.gz").unlink()  # a sidecar alone is worth as much
    assert "out.json" in refused(meduet(*words))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_found_before_computing(tiny_model, smooth_ct, noisy_ct, tmp_path):
    tmp_path.chmod(0o500)
    assert "cannot be written" in refused(
        meduet("swap", smooth_ct, noisy_ct, "-o", tmp_path / "out.nii.gz", "--model", tiny_model)
    )


def test_a_damaged_scan_names_its_file(tiny_model, smooth_ct, noisy_ct, tmp_path):
    content = bytearray(smooth_ct.read_bytes())
    content[len(content) // 2] ^= 4
    (tmp_path / "damaged.nii.gz").write_bytes(content)
    words = ("swap", tmp_path / "damaged.nii.gz", noisy_ct, "-o", tmp_path / "out.nii.gz")
    assert "damaged.nii.gz" in refused(meduet(*words, "--model", tiny_model))


def test_warnings_go_to_stderr(tiny_model, smooth_ct, tmp_path):
    result = meduet("extract", smooth_ct, "-o", tmp_path / "f.safetensors", "--model", tiny_model)
    assert "Warning" in result.stderr  # the phantom does not name its modality
    assert "Warning" not in result.stdout
    told = meduet(
        "extract", smooth_ct, "-o", tmp_path / "g.safetensors", "--model", tiny_model, "--modality", "CT"
    )
    assert "Warning" not in told.stderr


def test_info_of_a_scan_is_one_json_object(smooth_ct):
    result = meduet("info", smooth_ct, "--json")
    facts = json.loads(result.stdout.splitlines()[-1])
    image = nib.load(smooth_ct)
    assert facts["kind"] == "scan"
    assert facts["shape"] == list(image.shape)
    assert np.allclose(facts["affine"], image.affine)
    assert facts["spacing_mm"] == pytest.approx([1.2, 1.2, 2.5])
    values = np.asarray(image.dataobj)
    assert (facts["min_value"], facts["max_value"]) == (values.min(), values.max())
    assert len(facts["warnings"]) == 1


def test_info_of_everything_else(tiny_model, smooth_ct, tmp_path):
    made = ["--model", tiny_model]
    meduet("prototype", smooth_ct, "-o", tmp_path / "site.style", *made)
    meduet("extract", smooth_ct, "-o", tmp_path / "f.safetensors", *made)
    meduet("roundtrip", smooth_ct, "-o", tmp_path / "back.nii.gz", *made)

    def facts(path):
        result = meduet("info", path, "--json")
        assert result.exit_code == 0, result.output
        assert meduet("info", path).exit_code == 0
        return json.loads(result.stdout.splitlines()[-1])

    style, factors, result, model = map(
        facts, (tmp_path / "site.style", tmp_path / "f.safetensors", tmp_path / "back.nii.gz", tiny_model)
    )
    assert style["kind"] == "style"
    assert style["styles"]["style"]["num_scans"] == 1
    assert factors["kind"] == "factors"
    assert factors["tensors"]["0/content"] == [24]
    assert result["kind"] == "roundtrip"
    assert result["provenance"]["synthetic"] is True
    assert model["kind"] == "model"
    assert model["sha256"] == result["provenance"]["model"]["sha256"]


def test_info_refuses_what_it_does_not_know(tmp_path):
    for name, content in (
        ("a.style", b"nothing"),
        ("b.safetensors", b"\xff" * 64),
        ("c.nii.gz", b"no gzip"),
        ("d.style", (2).to_bytes(8, "little") + b"{}"),
    ):
        (tmp_path / name).write_bytes(content)
        assert name in refused(meduet("info", tmp_path / name, "--json"))


def test_the_version_is_printed():
    assert meduet("--version").stdout.strip() == __version__


def test_help_of_every_command_opens():
    for command in ("extract", "prototype", "swap", "roundtrip", "info"):
        result = meduet(command, "--help")
        assert result.exit_code == 0
        assert "Usage" in result.stdout


def test_a_process_exits_with_two_and_no_traceback(tmp_path):
    finished = in_a_process("info", tmp_path / "nothing.nii.gz")
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert len(finished.stderr.splitlines()) == 1
    assert "nothing.nii.gz" in finished.stderr
    assert str(tmp_path) not in finished.stderr


def test_unknown_options_exit_with_two_as_well(tmp_path):
    assert in_a_process("swap", "--wings").returncode == 2


def test_info_needs_no_torch(smooth_ct):
    script = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from napari_meduet.cli import app\n"
        f"result = CliRunner().invoke(app, ['info', {str(smooth_ct)!r}, '--json'])\n"
        "assert result.exit_code == 0, result.output\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "nibabel" in loaded
    assert not {"torch", "monai", "SimpleITK", "napari"} & set(loaded)


def test_an_interrupted_command_writes_nothing(tiny_model, smooth_ct, noisy_ct, tmp_path):
    """Ctrl-C in the middle of a swap."""
    import signal

    words = ["swap", smooth_ct, noisy_ct, "-o", tmp_path / "out.nii.gz", "--model", tiny_model]
    script = (
        "import signal, os, napari_meduet.pipelines.style_swap.session as r\n"
        "from napari_meduet.cli import app\n"
        "r.ContentReference.of = lambda *a: os.kill(os.getpid(), signal.SIGINT)\n"
        f"app({[str(word) for word in words]!r})\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert finished.returncode == 128 + signal.SIGINT
    assert "Traceback" not in finished.stderr
    assert list(tmp_path.iterdir()) == []


def test_info_costs_little_more_than_the_libraries_it_reads_with(smooth_ct):
    """Processor time beside that of the libraries alone; the first run of each may have to compile."""

    def processor_seconds(run) -> float:
        run()
        before = os.times()
        assert run().returncode == 0
        after = os.times()
        return after.children_user - before.children_user + after.children_system - before.children_system

    libraries = "import nibabel, pydantic, rich.progress, typer"
    alone = processor_seconds(lambda: subprocess.run([sys.executable, "-c", libraries]))
    assert processor_seconds(lambda: in_a_process("info", smooth_ct, "--json")) < 3 * alone
