"""Where the defaults of recipe keys come from: a paper, another project, a measurement, or a choice that we made."""

RULE = "derived by the [rule of the defaults](../defaults.md), measured on MiniLM"
CHOICE = "our choice, not measured"
SPEED = "our choice; it changes speed or disk space, not results"
SQUAD = "the name in SQuAD ([Rajpurkar et al. 2016](https://arxiv.org/abs/1606.05250))"
HU = "that of `roberta_base_mnli.sh` of microsoft/LoRA ([Hu et al. 2021](https://arxiv.org/abs/2106.09685))"

DEFAULT_SOURCES: dict[str, str] = {
    "data.max_length": "the length that Transformers' `run_glue.py` uses",
    "data.truncation": "what tokenizers of Transformers do",
    "data.stride": CHOICE,
    "data.window_pooling": CHOICE,
    "data.words": "the column of CoNLL-2003 and WNUT17 on the Hub",
    "data.conll_columns": "CoNLL-2003: the word first, the entity last",
    "data.spans": CHOICE,
    "data.scheme": CHOICE,
    "data.question": SQUAD,
    "data.context": SQUAD,
    "data.answers": SQUAD,
    "data.answer_start": SQUAD,
    "data.candidates": CHOICE,
    "data.first_index": "the way SWAG and HellaSwag count",
    "data.max_answer_length": "the length that Transformers' `run_qa.py` uses",
    "data.head_tokens": "[Sun et al. 2019](https://arxiv.org/abs/1905.05583)",
    "model.head.type": "one linear layer, as [Devlin et al. 2019](https://arxiv.org/abs/1810.04805)",
    "model.head.bottleneck_size": CHOICE,
    "model.head.activation": CHOICE,
    "model.head.dropout": "0.1, as [Devlin et al. 2019](https://arxiv.org/abs/1810.04805)",
    "model.pooling": "that of the model's own training; "
    "[Reimers and Gurevych 2019](https://arxiv.org/abs/1908.10084) for sentence-transformers",
    "model.weights": "the weights that torchvision recommends",
    "strategy.name": "measured: [strategies](../strategies.md#which-one-to-take)",
    "strategy.unfreeze.order": "[Howard and Ruder 2018](https://arxiv.org/abs/1801.06146)",
    "strategy.unfreeze.embeddings": "[Howard and Ruder 2018](https://arxiv.org/abs/1801.06146)",
    "strategy.unfreeze.plateau.metric": CHOICE,
    "strategy.grain": CHOICE,
    "strategy.lora.rank": HU,
    "strategy.lora.alpha": HU,
    "strategy.lora.target_modules": "queries and values, as [Hu et al. 2021](https://arxiv.org/abs/2106.09685)",
    "strategy.probe.layer": "measured: [a probe](../strategies.md#a-probe)",
    "strategy.probe.classifier": "[Alain and Bengio 2016](https://arxiv.org/abs/1610.01644)",
    "strategy.probe.folds": CHOICE,
    "optimizer.name": "[Loshchilov and Hutter 2019](https://arxiv.org/abs/1711.05101)",
    "optimizer.lr": RULE,
    "optimizer.head_lr": RULE,
    "optimizer.layer_decay": "ELECTRA's for its large model (0.8 for small and base; "
    "[Clark et al. 2020](https://arxiv.org/abs/2003.10555))",
    "optimizer.convention": "the formula lr of block l = `lr` x `layer_decay`^(L-l)",
    "optimizer.weight_decay": "[Devlin et al. 2019](https://arxiv.org/abs/1810.04805)",
    "optimizer.momentum": "0.9, the usual value of SGD",
    "schedule.name": "`run_classifier.py` of google-research/bert",
    "schedule.warmup": "`run_classifier.py` of google-research/bert",
    "schedule.ratio": "[Howard and Ruder 2018](https://arxiv.org/abs/1801.06146)",
    "training.duration": RULE,
    "training.per_device_batch_size": RULE,
    "training.eval_batch_size": SPEED,
    "training.group_by_length": "measured: padding costs up to 2.9 times the tokens without it",
    "training.max_grad_norm": "`optimization.py` of google-research/bert",
    "training.precision": SPEED,
    "training.evaluate_every": RULE,
    "training.checkpoint_every": RULE,
    "training.metric": "accuracy for labels; for several labels a text the metric of GoEmotions "
    "([Demszky et al. 2020](https://arxiv.org/abs/2005.00547)); for numbers that of STS-B "
    "([Cer et al. 2017](https://arxiv.org/abs/1708.00055) report Pearson, GLUE adds Spearman); for tags "
    "that of CoNLL-2003 ([Tjong Kim Sang and De Meulder 2003](https://aclanthology.org/W03-0419)), for answers that of "
    "SQuAD ([Rajpurkar et al. 2016](https://arxiv.org/abs/1606.05250))",
    "training.threshold": "measured: [several labels](../defaults.md#several-labels)",
    "training.keep": CHOICE,
    "training.early_stopping.patience": CHOICE,
    "training.feature_cache": SPEED,
    "training.feature_cache_gb": SPEED,
    "training.feature_precision": SPEED,
    "training.deterministic": "a run can be repeated",
    "baselines": "our choice: up to 20,000 rows they take seconds",
    "report": "our choice: it costs 4 seconds of one core, and is what people look at",
    "data.augmentation.crop": "torchvision's training reference",
    "data.augmentation.crop_scale": CHOICE,
    "data.augmentation.horizontal_flip": "torchvision's training reference",
    "data.augmentation.rand_augment.num_ops": "[Cubuk et al. 2020](https://arxiv.org/abs/1909.13719), for ResNet-50",
    "data.augmentation.rand_augment.magnitude": "[Cubuk et al. 2020](https://arxiv.org/abs/1909.13719), for ResNet-50",
}
"""Dotted key -> source of its default. Names, places and values that turn something off need none."""
