# Sourced by the other scripts: a virtual environment with oocload and what an extra of pyproject.toml names.
# It is made once and refreshed when pyproject.toml changes. PYTHON picks the interpreter (default: python3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# use_environment EXTRA [FOLDER [OPTIONS OF PIP...]]: the environment lies in FOLDER, or in .venv.
use_environment() {
    local extra=$1 folder=${2:-.venv}
    local stamp="$folder/.installed-$extra" options=("${@:3}")
    if [ ! -x "$folder/bin/python" ]; then
        echo "making $folder" >&2
        "${PYTHON:-python3}" -m venv "$folder"
    fi
    if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
        echo "installing oocload[$extra] in $folder" >&2
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "${options[@]}" --editable ".[$extra]"
        # On all cores, but for a third that nobody imports: the tests of packages, and what transformers has of models.
        "$folder/bin/python" -W ignore -m compileall -qq -j 0 -x '/(tests?|testing|models)/' "$folder/lib" ||
            true # templates are no Python
        touch "$stamp"
    fi
    export PATH="$PWD/$folder/bin:$PATH" TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"
}

# python_of VERSION: print the interpreter of that version, such as 3.12, found on PATH or among those of pyenv.
python_of() {
    local found
    for found in "python$1" "$(command -v pyenv >/dev/null && pyenv root)/versions/$1".*/bin/"python$1"; do
        if "$found" -c "" 2>/dev/null; then # pyenv puts names on PATH that may not run
            echo "$found"
            return
        fi
    done
    echo "no python$1 on PATH or among the versions of pyenv" >&2
    return 1
}

# oldest_versions: print the oldest versions that pyproject.toml allows of what oocload depends on, as pins for pip.
oldest_versions() {
    "${PYTHON:-python3}" -c 'import tomllib
for needed in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]:
    print(needed.replace(">=", "=="))'
}
