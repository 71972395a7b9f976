# Sourced by the other scripts: a virtual environment in .venv with oocload and what the extra in $1 names.
# It is made once and refreshed when pyproject.toml changes. PYTHON picks the interpreter (default: python3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

use_environment() {
    local extra=$1 stamp=".venv/.installed-$1"
    if [ ! -x .venv/bin/python ]; then
        echo "making .venv" >&2
        "${PYTHON:-python3}" -m venv .venv
    fi
    if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
        echo "installing oocload[$extra]" >&2
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --editable ".[$extra]"
        .venv/bin/python -W ignore -m compileall -qq -j 0 .venv/lib || true # on all cores; templates are no Python
        touch "$stamp"
    fi
    export PATH="$PWD/.venv/bin:$PATH" TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"
}
