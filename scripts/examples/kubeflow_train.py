"""Train a recipe with Kubeflow Trainer v2: python scripts/examples/kubeflow_train.py RECIPE.yaml [key=value ...].

The paths are those in the pods, on a disk that the runtime mounts in all of them.
"""

import argparse


def train(recipe: str, overrides: list[str]) -> None:
    """Train as one of the processes that Kubeflow starts, from the last checkpoint if there is one.

    Kubeflow sends the text of this function alone, and through a shell: it imports what it needs, and has no
    backslash, backtick or dollar sign.
    """
    from nlp_ft.cli import main

    main(["train", recipe, "--resume", *overrides])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a recipe with Kubeflow Trainer v2.")
    parser.add_argument("recipe", help="path of the recipe in the pods")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = vars(parser.parse_args())

    from kubeflow.trainer import CustomTrainer, TrainerClient

    trainer = CustomTrainer(func=train, func_args=arguments, num_nodes=2, packages_to_install=["nlp-ft"])
    print(TrainerClient().train(runtime="torch-distributed", trainer=trainer))
