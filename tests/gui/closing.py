"""Close the window or the dock while a job runs, and exit. test_closing.py runs this file as a process.

usage: closing.py window|dock swap|teach
"""

import sys
import time

import napari
import numpy as np
from conftest import PLUGIN, WIDGET, a_scan
from fakes import FakePipeline, FakeTeaching
from qtpy.QtCore import QTimer

from napari_meduet.gui.layers import image_layer

viewer = napari.Viewer()
for seed, name in enumerate("AB"):
    data, state, _ = image_layer(a_scan(seed), name)
    viewer.add_image(data, **state)

if sys.argv[2] == "swap":
    from napari_meduet.pipelines.style_swap import session as restyling

    pipeline = FakePipeline()
    restyling.open_swap = pipeline.open_swap
    dock, widget = viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
    button = widget.run.button
else:
    from napari_meduet.pipelines.segmentation import finetuning as teaching

    pipeline = FakeTeaching()
    teaching.teach = pipeline.teach
    dock, widget = viewer.window.add_plugin_dock_widget(PLUGIN, "MeDUET segmentation")
    widget.teach_page.form.samples.add_painting()
    viewer.layers.selection.active.data_setitem((np.array([1]), np.array([1]), np.array([1])), 1)
    button = widget.teach_page.train.button
pipeline.gate.clear()


def begin():
    """Press the button as soon as it is enabled."""
    button.click()
    QTimer.singleShot(20, close if widget.is_busy else begin)


def close():
    """Close the window or the dock after the job has started."""
    global closed_at
    closed_at = time.process_time()
    if pipeline.calls == 0:
        QTimer.singleShot(20, close)
    elif sys.argv[1] == "window":
        viewer.close()
    else:
        viewer.window.remove_dock_widget(dock)
        leave_when_stopped()


def leave_when_stopped():
    """Check that a removed dock stops its job and that the viewer still works."""
    if pipeline.is_cancelled:
        viewer.add_points([[0, 0, 0]])
        viewer.close()
    else:
        QTimer.singleShot(20, leave_when_stopped)


QTimer.singleShot(0, begin)
napari.run()
while not pipeline.is_cancelled:
    time.sleep(0.01)
assert pipeline.calls == 1
print(time.process_time() - closed_at)
