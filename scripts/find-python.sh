#!/usr/bin/env bash
# Print the path of a Python that can run this project: 3.11 or newer, with the venv module. Exit with 1 if there
# is none.
for candidate in "${PYTHON:-}" python3 python3.11 python3.12 python3.13 python3.14; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        command -v "$candidate"
        exit 0
    fi
done
exit 1
