# Sourced by quickstart and test: makes a virtual environment once, and again when pyproject.toml has changed.
# $1 is the list of extras, such as demo or test; $2 the folder; further arguments go to pip. Whatever pip is configured
# to use is used.
make_environment() {
    local extras="$1" folder="$2" stamp="$2/.extras-$1"
    shift 2
    if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
        echo "making the environment in $folder (once; PyTorch is a large download)"
        [ -x "$folder/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder"
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]" "$@"
        touch "$stamp"
    fi
}
