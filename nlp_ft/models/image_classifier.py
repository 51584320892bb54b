"""The model for images: a torchvision network whose last layer is a new head, as a Transformers model.

It is registered with Transformers' Auto classes when nlp_ft is imported, so that a saved folder loads with
`AutoModelForImageClassification.from_pretrained(folder)` and `pipeline("image-classification", model=folder)`. The
saved weights have torchvision's own names: `torchvision.models.get_model(name, num_classes=...)` loads them as well.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

from nlp_ft.errors import ModelError
from nlp_ft.extras import require_torchvision
from nlp_ft.models.configs import ImageClassifierConfig
from nlp_ft.models.losses import loss_of_labels

BOTTLENECK_DROPOUT = 0.5
"""Dropout of a bottleneck head, as in networks with several layers after the features.

Krizhevsky et al. 2012; Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html.
"""


class ImageClassifier(PreTrainedModel):
    """A torchvision network whose last layer is replaced by a head for the labels of `config`."""

    config_class = ImageClassifierConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    input_modalities = "image"
    # Makes the Trainer pass `num_items_in_batch`, by which `forward` divides the loss.
    accepts_loss_kwargs = True

    def __init__(self, config: ImageClassifierConfig) -> None:
        super().__init__(config)
        self.backbone = build_backbone(config)
        self.head_name, last = find_last_layer(self.backbone)
        self.backbone.set_submodule(self.head_name, _head(self.backbone, self.head_name, last, config))
        self.post_init()  # type: ignore[no-untyped-call]  # of Transformers

    def _init_weights(self, module: nn.Module) -> None:
        """Change nothing: torchvision has initialized its network, and torch the layers of a bottleneck."""

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_dict: bool | None = None,
    ) -> ImageClassifierOutputWithNoAttention | tuple[torch.Tensor, ...]:
        """Compute the logits, (batch, num_labels), and the loss of `config.problem_type` if there are labels.

        Args:
            pixel_values: images, (batch, 3, height, width), normalized like those of the run folder's image processor.
            labels: label ids, (batch,); see `loss_of_labels` for labels of other shapes.
            num_items_in_batch: number of labels in the whole effective batch; None averages over this batch.
            return_dict: False returns a tuple of all values that are not None; None follows the config.

        Raises:
            ModelError: a BatchNorm in train mode has one value a channel, from a batch of one small image.
        """
        logits = self._logits(pixel_values)
        loss = None if labels is None else loss_of_labels(self.config, logits, labels, num_items_in_batch)
        result = ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return result if as_dict else result.to_tuple()

    def _logits(self, pixel_values: torch.Tensor) -> torch.Tensor:
        try:
            logits: torch.Tensor = self.backbone(pixel_values)
        except ValueError as error:
            if not str(error).startswith("Expected more than 1 value per channel"):
                raise
            raise ModelError(
                f"training.per_device_batch_size: BatchNorm of {self.config.backbone} has no statistics of a batch of "
                f"one image of {self.config.image_size} pixels; take batches of 2 images or more, or a larger "
                "data.image_size"
            ) from None
        return logits

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Save as Transformers does, under torchvision's names; loading adds the prefix again."""
        super().save_pretrained(save_directory, *args, **{"state_dict": self.backbone.state_dict(), **kwargs})


class DroppingLinear(nn.Linear):
    """Dropout, then the given linear layer, under the names of the layer alone."""

    def __init__(self, layer: nn.Linear, dropout: float) -> None:
        super().__init__(1, 1, bias=layer.bias is not None)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.drop_ratio = dropout

    def forward(self, vector: torch.Tensor) -> torch.Tensor:
        """Compute logits, (batch, num_labels), from features, (batch, features)."""
        return super().forward(F.dropout(vector, self.drop_ratio, self.training))


def build_backbone(config: ImageClassifierConfig) -> nn.Module:
    """Build the torchvision network with random weights and one output for each label.

    Raises:
        ModelError: torchvision is missing, or has no classification model of that name or for images of that size.
    """
    models = require_torchvision(ModelError, "torchvision.models")
    # torchvision also has networks for other tasks, and `get_model` would build them.
    if config.backbone not in models.list_models(module=models):
        raise ModelError(f"config.json: backbone {config.backbone!r} is not a classification model of torchvision")
    options: dict[str, Any] = {"num_classes": config.num_labels}
    if config.backbone in ("googlenet", "inception_v3"):
        # The auxiliary heads serve training from scratch (Szegedy et al. 2015, https://arxiv.org/abs/1409.4842) and are
        # left out. The weights expect inputs in [-1, 1]; `transform_input` converts images with ImageNet's
        # normalization to that range.
        options |= {"aux_logits": False, "transform_input": True, "init_weights": True}
    if config.backbone.startswith("vit_"):
        options["image_size"] = config.image_size
    if config.backbone.startswith("maxvit"):
        options["input_size"] = (config.image_size, config.image_size)
    try:
        network: nn.Module = models.get_model(config.backbone, weights=None, **options)
    except NotImplementedError:
        # RegNet computes its widths from tensors, which have no values on the meta device.
        with torch.device("cpu"):
            network = models.get_model(config.backbone, weights=None, **options)
    except (AssertionError, ValueError) as error:  # of ViT and MaxViT, which are built for one size
        raise size_refused(config, error) from None
    return network


def size_refused(config: PreTrainedConfig, error: Exception) -> ModelError:
    """Make the error of a network that cannot take images of the size of `config`, from what torchvision says."""
    reason = str(error).strip().splitlines()[0][:200]
    return ModelError(f"data.image_size: {config.backbone} takes no images of {config.image_size} pixels: {reason}")


def find_last_layer(backbone: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Find the layer that computes the logits, and its name: the last linear layer, or convolution in SqueezeNet."""
    layers = {name: layer for name, layer in backbone.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    name = list(layers)[-1]
    return name, layers[name]


def _head(backbone: nn.Module, name: str, last: nn.Linear | nn.Conv2d, config: ImageClassifierConfig) -> nn.Module:
    dropout = config.head_dropout
    if config.head_type == "bottleneck":
        return nn.Sequential(
            _layer(last, _in_size(last), config.bottleneck_size),
            ACT2FN[config.activation],
            nn.Dropout(BOTTLENECK_DROPOUT if dropout is None else dropout),
            _layer(last, config.bottleneck_size, len(config.id2label or {})),
        )
    if dropout is not None:
        before = _module_before(backbone, name)
        if isinstance(before, nn.Dropout):
            before.p = dropout
        else:
            assert isinstance(last, nn.Linear), "SqueezeNet has a dropout of its own"
            return DroppingLinear(last, dropout)
    return last


def _in_size(last: nn.Linear | nn.Conv2d) -> int:
    return last.in_features if isinstance(last, nn.Linear) else last.in_channels


def _layer(like: nn.Linear | nn.Conv2d, in_size: int, out_size: int) -> nn.Module:
    return nn.Linear(in_size, out_size) if isinstance(like, nn.Linear) else nn.Conv2d(in_size, out_size, 1)


def _module_before(backbone: nn.Module, name: str) -> nn.Module | None:
    """Find the sibling registered just before a module, where networks have their dropout; None if it is the first."""
    parent, _, child = name.rpartition(".")
    siblings = dict(backbone.get_submodule(parent).named_children())
    names = list(siblings)
    place = names.index(child)
    return siblings[names[place - 1]] if place else None


def register() -> None:
    """Register the model class with AutoModelForImageClassification."""
    AutoModelForImageClassification.register(ImageClassifierConfig, ImageClassifier, exist_ok=True)


register()
