# Each target installs what it needs, once: system libraries (scripts/setup-system.sh), a virtual environment, and
# the pinned packages (constraints.txt). A file .installed-EXTRA in the environment records what was installed.

SHELL := bash
VENV ?= .venv
BIN := $(VENV)/bin
LINUX := $(filter Linux,$(shell uname -s))
# a screen: an X or Wayland session, or a Mac
SCREEN := $(or $(DISPLAY),$(WAYLAND_DISPLAY),$(filter Darwin,$(shell uname -s)))
# the tests use a virtual screen, also on a desktop
ON_A_VIRTUAL_SCREEN := $(if $(LINUX),env -u WAYLAND_DISPLAY QT_QPA_PLATFORM=xcb xvfb-run -a)
export PYTHON

.PHONY: help demo test lint docs bench soak model system-python system-qt system-tests

help:
	@echo "make demo    swap the style of a sample scan, in napari or without a screen into demo-output/"
	@echo "make test    run all tests, on a virtual screen"
	@echo "make lint    check style, types, import contracts and the plugin manifest"
	@echo "make docs    build the documentation into site/"
	@echo "make bench   run all benchmarks"
	@echo "make soak    repeat the training faults of docs/reliability.md; takes hours"
	@echo "make model   train the embedded model again"

ifneq ($(SCREEN),)
demo: system-qt $(VENV)/.installed-gui
	$(BIN)/python -m napari_meduet.gui.demo
else
demo: $(VENV)/.installed-base
	$(BIN)/python -m napari_meduet.pipelines.demo
endif

test: system-tests $(VENV)/.installed-dev
	$(ON_A_VIRTUAL_SCREEN) $(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache
	$(BIN)/npe2 validate napari-meduet

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.installed-dev
	set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

soak: $(VENV)/.installed-dev
	$(BIN)/python scripts/soak.py

model: $(VENV)/.installed-train
	$(BIN)/meduet-train demo
	$(BIN)/meduet-train generator --preset tiny --model src/napari_meduet/models/demo --data ../shared/data -o caches/generator
	$(BIN)/meduet-train export-generator caches/generator --into src/napari_meduet/models/demo
	$(BIN)/python scripts/make_segmenter_labels.py ../shared/data caches/segmenter_labels
	$(BIN)/meduet-train segmenter --preset tiny --model src/napari_meduet/models/demo --data caches/segmenter_labels \
		--modality CT --patience 0 --steps 3000 --set trainer.validate_every=250 -o caches/segmenter
	$(BIN)/meduet-train export-segmenter caches/segmenter --into src/napari_meduet/models/demo

system-python:
	@scripts/setup-system.sh python

system-qt:
	@scripts/setup-system.sh python qt

system-tests:
	@scripts/setup-system.sh python qt xvfb sshd slurm

$(VENV)/.installed-%: pyproject.toml constraints.txt | system-python
	scripts/setup-python.sh $(VENV) $*
	@touch $@
