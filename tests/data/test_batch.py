"""What a batch holds: the model's inputs, without the labels and the numbers of the rows."""

import torch

from nlp_ft.data.batch import model_inputs


def test_the_inputs_of_a_batch_are_all_but_labels_and_rows_in_their_order() -> None:
    ones = torch.ones(2)
    batch = {"input_ids": ones, "labels": ones, "attention_mask": ones, "row": ones}
    assert list(model_inputs(batch)) == ["input_ids", "attention_mask"]
    assert model_inputs(batch)["input_ids"] is ones
