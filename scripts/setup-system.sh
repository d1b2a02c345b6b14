#!/usr/bin/env bash
# Installs what is missing of the operating system's part, and nothing where nothing is missing.
#   scripts/setup-system.sh python            a Python that can make virtual environments
#   scripts/setup-system.sh python qt         and the libraries that Qt and OpenGL load at run time
#   scripts/setup-system.sh python qt xvfb    and a virtual screen, for tests
#   scripts/setup-system.sh ... sshd slurm    and servers that tests start for themselves: an SSH server, SLURM
# On Debian and its children it calls apt-get, as root or through a sudo that asks for no password. Elsewhere it
# says what is missing and stops. macOS brings all of it along.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin" # where Debian keeps ldconfig from ordinary users
[ "$(uname -s)" = Linux ] || set -- python

# What the loader must find, and the Debian package that brings it. Found with ldd on a bare Debian 12:
# without any one of them Qt aborts or napari says that no Qt bindings are installed.
qt_libraries="
libEGL.so.1            libegl1
libGL.so.1             libgl1
libglib-2.0.so.0       libglib2.0-0
libdbus-1.so.3         libdbus-1-3
libfontconfig.so.1     libfontconfig1
libxkbcommon.so.0      libxkbcommon0
libxkbcommon-x11.so.0  libxkbcommon-x11-0
libxcb-cursor.so.0     libxcb-cursor0
libxcb-icccm.so.4      libxcb-icccm4
libxcb-keysyms.so.1    libxcb-keysyms1
libxcb-shape.so.0      libxcb-shape0
"

# Debian starts a server that it installs. On a machine that somebody works at, that is asked for and not done
# by the way: only CI and containers get one, and elsewhere the tests that need it say so and are skipped.
server() {
    local program=$1
    shift
    command -v "$program" >/dev/null && return
    if command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; } &&
        { [ -n "${CI:-}" ] || [ ! -d /run/systemd/system ]; }; then
        packages+=("$@")
    else
        echo "No $program here: tests that need it are skipped. To run them: apt-get install $*" >&2
    fi
}

packages=()
for want in "$@"; do
    case $want in
        python)
            scripts/find-python.sh >/dev/null || packages+=(python3 python3-venv)
            ;;
        qt)
            known=$(ldconfig -p)
            while read -r library package; do
                [ -z "$library" ] || grep -qF "$library " <<<"$known" || packages+=("$package")
            done <<<"$qt_libraries"
            # a driver that draws without a graphics card
            compgen -G '/usr/lib*/**/dri/*_dri.so' >/dev/null || compgen -G '/usr/lib*/dri/*_dri.so' >/dev/null ||
                packages+=(libgl1-mesa-dri)
            ;;
        xvfb)
            command -v xvfb-run >/dev/null || packages+=(xvfb)
            command -v xauth >/dev/null || packages+=(xauth)
            ;;
        sshd) server sshd openssh-server ;;
        slurm) server slurmctld slurmctld slurmd slurm-client munge ;;
    esac
done

if [ "$(uname -s)" = Linux ] && [ ${#packages[@]} -gt 0 ]; then
    install=(apt-get install -y --no-install-recommends "${packages[@]}")
    if ! command -v apt-get >/dev/null; then
        echo "Missing on this system, by their Debian names: ${packages[*]}. Install their counterparts." >&2
        exit 1
    elif [ "$(id -u)" = 0 ]; then
        as_root=()
    elif sudo -n true 2>/dev/null; then
        as_root=(sudo)
    else
        echo "System packages are missing and I may not install them. Run this, then try again:" >&2
        echo "  sudo apt-get update && sudo ${install[*]}" >&2
        exit 1
    fi
    # another apt may be at work, on a machine just started
    patience=(-o DPkg::Lock::Timeout=300)
    "${as_root[@]}" apt-get "${patience[@]}" update
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" "${patience[@]}"
fi

if ! scripts/find-python.sh >/dev/null; then
    echo "This project needs Python 3.11 or newer with its venv module. Install one, or name it: make PYTHON=..." >&2
    exit 1
fi
