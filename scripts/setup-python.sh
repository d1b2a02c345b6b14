#!/usr/bin/env bash
# Create or complete a virtual environment, and install this checkout into it.
#   scripts/setup-python.sh .venv dev        extras: base (none), gui, train, all, dev
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 extra=$2

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$(scripts/find-python.sh)" -m venv "$venv"
fi
[ "$extra" = base ] && package=. || package=".[$extra]"
"$venv/bin/python" -m pip install --disable-pip-version-check --constraint constraints.txt --editable "$package"
