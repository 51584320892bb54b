"""Train a recipe on one or several processes: accelerate launch scripts/train.py RECIPE.yaml [key=value ...]."""

import sys

from nlp_ft.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
