"""`make demo` without a screen leaves volumes, pictures and a report."""

import numpy as np
from PIL import Image

from napari_meduet.pipelines import demo, read_volume


def test_the_demonstration_writes_what_it_promises(
    tiny_model, smooth_ct, noisy_ct, mr, tmp_path, monkeypatch
):
    scans = {
        "ct_chest_soft_kernel": smooth_ct,
        "ct_chest_sharp_kernel": noisy_ct,
        "mr_brain_t1": mr,
        "mr_brain_t2": mr,
    }
    monkeypatch.setattr(demo, "_sample", lambda name, modality: read_volume(scans[name], modality=modality))
    demo.main(tmp_path / "demo-output", tiny_model)
    written = {path.name for path in (tmp_path / "demo-output").iterdir()}
    names = {swap.name for swap in demo.SWAPS}
    assert written == {"report.md"} | {
        f"{name}{end}" for name in names for end in (".nii.gz", ".json", ".png")
    }
    report = (tmp_path / "demo-output" / "report.md").read_text()
    for name in names:
        assert f"{name}.png" in report
        picture = np.asarray(Image.open(tmp_path / "demo-output" / f"{name}.png"))
        assert picture.std() > 10
    assert str(tmp_path) not in report


def test_the_samples_of_the_demonstration_ship_with_the_package():
    for swap in demo.SWAPS:
        for name in (swap.content, swap.style):
            assert demo._sample(name, swap.modality).modality == swap.modality
