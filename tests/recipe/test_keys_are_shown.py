"""Every key of a recipe is shown: in a recipe that ships, in the README or docs, or by a test of its effect."""

import ast
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from nlp_ft.errors import RecipeError
from nlp_ft.recipe import RECIPES
from nlp_ft.recipe.sections import Section
from nlp_ft.recipe.yaml_reader import parse_yaml, read_yaml

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

SHOWN_BY = {
    "data/test_images.py": {
        "test_a_saved_dataset_gives_the_same_rows": ["data.image"],
    },
    "data/test_stored.py": {
        "test_several_processes_keep_their_parts_and_damage_of_one_is_noticed": ["data.num_proc"],
    },
    "data/test_tokens.py": {
        "test_the_beginning_and_the_end_are_kept_by_hand": ["data.head_tokens"],
        "test_the_end_is_kept_by_hand": ["data.truncation"],
    },
    "data/test_transforms.py": {
        "test_a_flip_turns_the_image_over": ["data.augmentation.horizontal_flip", "data.augmentation.vertical_flip"],
    },
    "data/choices/test_choices.py": {
        "test_indices_count_from_1_where_the_recipe_says_so": ["data.first_index"],
    },
    "data/words/test_words.py": {
        "test_conll_files_are_read_by_their_columns_and_document_lines_are_left_out": ["data.conll_columns"],
        "test_character_spans_become_tags_of_the_words_and_keep_their_places": ["data.scheme"],
    },
    "models/test_loading.py": {
        "test_keep_head_keeps_it_for_the_same_labels_in_the_same_order_alone": ["model.keep_head"],
    },
    "models/test_text.py": {
        "test_dropout_of_encoder_and_head_is_what_the_recipe_says": ["model.dropout"],
    },
    "recipe/test_effects.py": {
        "test_label_names_are_the_labels_in_the_order_of_their_ids": ["data.label_names"],
        "test_config_and_revision_are_those_of_the_hub_data_set": ["data.revision"],
        "test_revision_and_trust_remote_code_are_those_of_the_hub_model": ["model.revision", "model.trust_remote_code"],
        "test_betas_eps_and_momentum_are_the_optimizers": ["optimizer.betas", "optimizer.eps", "optimizer.momentum"],
        "test_the_convention_decides_the_rate_of_the_top_block": ["optimizer.convention"],
        "test_warmup_ends_at_the_highest_rate_and_ratio_divides_it_at_the_start": ["schedule.ratio", "schedule.warmup"],
        "test_order_and_blocks_per_phase_and_embeddings_choose_the_layers_of_the_phases": [
            "strategy.unfreeze.blocks_per_phase",
            "strategy.unfreeze.embeddings",
            "strategy.unfreeze.order",
        ],
        "test_every_is_the_length_of_a_phase_and_null_divides_the_run": ["strategy.unfreeze.every"],
        "test_lr_scales_layer_warmup_and_restart_lr_are_those_of_the_phases": [
            "strategy.unfreeze.layer_warmup",
            "strategy.unfreeze.lr_scales",
            "strategy.unfreeze.restart_lr",
        ],
        "test_layers_with_their_times_are_the_phases": ["strategy.unfreeze.layers"],
        "test_a_loss_below_has_its_value_and_bounds": [
            "strategy.unfreeze.loss_below.at_least",
            "strategy.unfreeze.loss_below.at_most",
            "strategy.unfreeze.loss_below.value",
        ],
        "test_a_plateau_has_its_metric_patience_min_delta_and_bounds": [
            "strategy.unfreeze.plateau.at_least",
            "strategy.unfreeze.plateau.at_most",
            "strategy.unfreeze.plateau.metric",
            "strategy.unfreeze.plateau.min_delta",
            "strategy.unfreeze.plateau.patience",
        ],
        "test_deterministic_asks_for_deterministic_kernels_on_a_gpu": ["training.deterministic"],
        "test_group_by_length_puts_texts_of_similar_length_together": ["training.group_by_length"],
        "test_keep_chooses_the_model_of_the_run": ["training.keep"],
        "test_max_grad_norm_bounds_the_step": ["training.max_grad_norm"],
    },
    "training/verdict/test_wiring.py": {
        "test_baselines_are_computed_for_small_data_alone_unless_the_recipe_says": ["baselines"],
    },
    "training/features/test_damaged_features.py": {
        "test_features_of_another_precision_or_batch_are_other_features": ["training.eval_batch_size"],
    },
    "training/features/test_feature_cache.py": {
        "test_a_run_with_features_ends_with_the_weights_of_one_without": ["training.feature_cache"],
        "test_what_is_decided_is_said": ["training.feature_cache_gb"],
        "test_features_of_half_precision_change_the_weights_by_no_more_than_their_rounding": [
            "training.feature_precision"
        ],
    },
    "training/test_gradual.py": {
        "test_what_begins_at_random_is_not_the_pretrained_one": ["strategy.reinit_top"],
        "test_a_phase_begins_with_the_best_weights_of_the_one_before": ["strategy.unfreeze.restore_best"],
        "test_patience_ends_the_run_in_the_last_phase_and_counts_anew_in_each": ["training.early_stopping.min_delta"],
    },
    "training/test_image_run.py": {
        "test_a_run_that_stops_resumes_to_the_bit_whatever_the_number_of_workers": [
            "data.num_workers",
            "training.checkpoint_every",
        ],
    },
    "training/test_layer_rules.py": {
        "test_a_rule_goes_before_the_structure": ["model.layer_rules"],
    },
    "training/test_recorder.py": {
        "test_a_run_with_it_has_the_weights_of_a_run_without_it": ["report"],
    },
    "training/test_run.py": {
        "test_every_optimizer_learns_the_tiny_task": ["optimizer.name"],
        "test_another_seed_gives_other_weights": ["seed"],
        "test_tensorboard_gets_the_metrics": ["trackers"],
        "test_accumulated_small_batches_equal_one_large_batch": ["training.gradient_accumulation_steps"],
        "test_a_run_by_tokens_learns_and_says_how_many_rows_go_together": ["training.max_tokens_per_batch"],
        "test_bf16_computes_in_bf16_and_saves_float32": ["training.precision"],
    },
}
"""File in tests/ -> test -> the keys whose effect it shows, which are in no recipe that ships."""


def sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for inner in get_args(annotation) for section in sections_in(inner)]


def keys_of(section: type[Section], above: str = "") -> Iterator[str]:
    """The dotted keys that hold a value and no section."""
    for name, field in section.model_fields.items():
        inner = sections_in(field.annotation)
        if not inner:
            yield f"{above}{name}"
        for held in inner:
            yield from keys_of(held, f"{above}{name}.")


KEYS = {key for recipe in RECIPES.values() for key in keys_of(recipe)}


def keys_in(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{above}{name}"
        if isinstance(value, dict):
            yield from keys_in(value, f"{above}{name}.")


def keys_in_recipes() -> set[str]:
    return {key for file in (ROOT / "recipes").glob("*.yaml") for key in keys_in(read_yaml(file))}


def keys_in_pages() -> set[str]:
    """The keys in YAML blocks of the pages, and those that a command of a block sets."""
    found: set[str] = set()
    for block in (block for page in PAGES for block in re.findall(r"```(\w*)\n(.*?)```", page.read_text(), re.DOTALL)):
        with suppress(RecipeError):
            values = parse_yaml(block[1], "block") if block[0] in ("yaml", "yml") else {}
            found |= set(keys_in(values)) if isinstance(values, dict) else set()
        found |= set(re.findall(r"\s([a-z_.]+)=", block[1]))
    return found


def source_of(file: str, name: str) -> str:
    """The source of a test with its parameters, without its name; "" where there is none of that name."""
    source = (ROOT / "tests" / file).read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            return "\n".join(source.splitlines()[first - 1 : node.end_lineno]).replace(f"def {name}", "")
    return ""


TABLE = [(file, test, key) for file, tests in SHOWN_BY.items() for test, keys in tests.items() for key in keys]


def test_every_key_is_shown_by_a_recipe_a_page_or_a_test() -> None:
    assert KEYS - keys_in_recipes() - keys_in_pages() - {key for _, _, key in TABLE} == set()


def test_the_tests_that_show_keys_exist_and_use_them() -> None:
    wrong = [
        f"{file}::{test}: {key}"
        for file, test, key in TABLE
        if not re.search(rf"\b{key.rpartition('.')[2]}\b", source_of(file, test))
    ]
    assert wrong == []


def test_the_table_names_keys_that_exist_and_that_no_recipe_shows() -> None:
    keys = {key for _, _, key in TABLE}
    assert (keys - KEYS, keys & keys_in_recipes()) == (set(), set())
    assert len(keys) == len(TABLE)
