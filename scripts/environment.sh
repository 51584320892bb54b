# Sourced by quickstart and test: makes .venv once, and again when pyproject.toml has changed.
# $1 is the list of extras, such as demo or test. Whatever pip is configured to use is used.
make_environment() {
    local stamp=".venv/.extras-$1"
    if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
        echo "making the environment in .venv (once; PyTorch is a large download)"
        [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$1]"
        touch "$stamp"
    fi
}
