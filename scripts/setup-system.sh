#!/usr/bin/env bash
# Install the missing packages of the operating system.
#   scripts/setup-system.sh python            a Python with the venv module
#   scripts/setup-system.sh python qt         also the libraries that Qt and OpenGL load at run time
#   scripts/setup-system.sh python qt xvfb    also a virtual screen, for tests
#   scripts/setup-system.sh ... sshd slurm    also servers that tests start: an SSH server, SLURM
# On Debian and its derivatives the script calls apt-get, as root or with a sudo that needs no password. On other
# systems it prints the missing packages and stops. macOS needs no packages.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin" # the folder of ldconfig on Debian, which is not in the PATH of ordinary users
[ "$(uname -s)" = Linux ] || set -- python

# Libraries that the loader must find, and their Debian packages. They were determined with ldd on a minimal Debian
# 12. If one is missing, Qt aborts, or napari reports that no Qt bindings are installed.
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

# Debian starts a server when it is installed. Therefore servers are installed only in CI and in containers. On other
# machines, the tests that need a server are skipped.
server() {
    local program=$1
    shift
    command -v "$program" >/dev/null && return
    if command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; } &&
        { [ -n "${CI:-}" ] || [ ! -d /run/systemd/system ]; }; then
        packages+=("$@")
    else
        echo "$program is not installed, so the tests that need it are skipped. To run them: apt-get install $*" >&2
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
            # a driver for machines without a graphics card
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
        echo "These packages are missing (Debian names): ${packages[*]}. Install the packages of your system." >&2
        exit 1
    elif [ "$(id -u)" = 0 ]; then
        as_root=()
    elif sudo -n true 2>/dev/null; then
        as_root=(sudo)
    else
        echo "System packages are missing, and this user may not install them. Run this command, then try again:" >&2
        echo "  sudo apt-get update && sudo ${install[*]}" >&2
        exit 1
    fi
    # another apt-get may be running on a machine that has just started
    lock_timeout=(-o DPkg::Lock::Timeout=300)
    "${as_root[@]}" apt-get "${lock_timeout[@]}" update
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" "${lock_timeout[@]}"
fi

if ! scripts/find-python.sh >/dev/null; then
    echo "This project needs Python 3.11 or newer with the venv module. Install it, or give its path: make PYTHON=..." >&2
    exit 1
fi
