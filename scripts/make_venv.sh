#!/bin/sh
# Makes .venv/ with the first Python that can carry the project, and installs the project in it.
set -eu
cd -P "$(dirname "$0")/.."

# Prints why a Python will not do, or nothing. It is run, not looked up: a name on the PATH may be
# a launcher with nothing behind it.
objection() {
    command -v "$1" >/dev/null 2>&1 || { echo "not found"; return; }
    if ! said=$("$1" - 2>&1 <<'PYTHON'
import sys

if not (3, 11) <= sys.version_info < (3, 13):
    sys.exit("is Python %d.%d" % sys.version_info[:2])
try:
    import ensurepip
    import venv
except ImportError:
    sys.exit("lacks the venv module")
PYTHON
    ); then
        echo "${said:-does not run}" | head -n 1
    fi
}

if [ -n "$(objection .venv/bin/python)" ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1
then
    chosen=
    tried=
    for python in python3.12 python3.11 python3; do
        reason=$(objection "$python")
        if [ -z "$reason" ]; then
            chosen=$python
            break
        fi
        tried="$tried
  $python: $reason"
    done
    if [ -z "$chosen" ]; then
        {
            echo "avse-ppl needs Python 3.11 or 3.12 with its venv module. Looked for:$tried"
            echo "On Debian or Ubuntu: apt-get install python3 python3-venv"
        } >&2
        exit 1
    fi
    echo "Making .venv with $("$chosen" --version)."
    "$chosen" -m venv --clear .venv
fi

echo "Installing into .venv. The first time, this fetches about 3 GB (PyTorch) and takes minutes."
install() {  # what is imported is compiled then, and much never is
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-compile \
        --constraint constraints.txt "$@"
}
install --editable '.[dev]'
# One of the metrics is compiled when it is installed. Without a compiler, all else still works.
if ! install --editable '.[pesq]' >.venv/pesq.log 2>&1; then
    echo "PESQ will be reported as n/a: pesq could not be compiled (see .venv/pesq.log). It needs a" \
        "C compiler and Python's headers (python3-dev gcc); then: .venv/bin/pip install pesq" >&2
fi
touch .venv/installed
