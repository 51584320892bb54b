"""The configurations of the two model classes of nlp_ft; importing this module registers them with AutoConfig.

They are in a module of their own because Transformers imports AutoConfig before it defines the base class of models.
"""

from typing import Any, get_args

from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto.configuration_auto import AutoConfig

from nlp_ft.errors import ModelError
from nlp_ft.models.heads import HeadType
from nlp_ft.models.pooling import ClsPosition, Pooling


class PooledClassifierConfig(PreTrainedConfig):
    """Configuration of a `PooledClassifier`: the encoder's configuration, and how its output becomes logits.

    Args:
        encoder_config: configuration of the encoder, or its values as a dictionary.
        pooling: how the token vectors of a text become one vector.
        cls_position: end of the text at which the tokenizer puts the CLS token, for `pooling="cls"`.
        layer: the layer whose tokens are pooled, 0 for the embeddings; None is the output of the encoder.
        head_type: see `ClassificationHead`; so are `bottleneck_size`, `activation` and `head_dropout`.
        bottleneck_size: units between the two layers of a bottleneck head.
        activation: name of the activation of a bottleneck head.
        head_dropout: share of units dropped before the last layer, in [0, 1).
        kwargs: the arguments of `PreTrainedConfig`.

    Raises:
        ModelError: a name is unknown; the message lists the known ones.
    """

    model_type = "nlp_ft_pooled_classifier"
    sub_configs = {"encoder_config": AutoConfig}  # noqa: RUF012  # as PreTrainedConfig declares it

    def __init__(
        self,
        encoder_config: PreTrainedConfig | dict[str, Any] | None = None,
        pooling: Pooling = "mean",
        cls_position: ClsPosition = "first",
        layer: int | None = None,
        head_type: HeadType = "linear",
        bottleneck_size: int = 128,
        activation: str = "relu",
        head_dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        if isinstance(encoder_config, dict):
            encoder_config = AutoConfig.for_model(**encoder_config)
        for name, value, known in [
            ("pooling", pooling, get_args(Pooling)),
            ("cls_position", cls_position, get_args(ClsPosition)),
            ("head_type", head_type, get_args(HeadType)),
        ]:
            if value not in known:
                raise ModelError(f"config.json: {name} must be one of: {', '.join(known)}, got {value!r}")
        self.encoder_config = encoder_config
        self.pooling = pooling
        self.cls_position = cls_position
        self.layer = layer
        self.head_type = head_type
        self.bottleneck_size = bottleneck_size
        self.activation = activation
        self.head_dropout = head_dropout
        super().__init__(**kwargs)


class ImageClassifierConfig(PreTrainedConfig):
    """Configuration of an `ImageClassifier`: the torchvision network and its head.

    Args:
        backbone: name of the network in torchvision.
        image_size: side of the square images, in pixels.
        head_type: `linear` replaces the last layer, `bottleneck` puts two layers in its place.
        bottleneck_size: units between the two layers of a bottleneck head.
        activation: name of the activation of a bottleneck head.
        head_dropout: share of units dropped before the last layer, in [0, 1); None keeps the network's own dropout,
            or drops half of the units of a bottleneck.
        kwargs: the arguments of `PreTrainedConfig`.

    Raises:
        ModelError: `head_type` is unknown.
    """

    model_type = "nlp_ft_image_classifier"

    def __init__(
        self,
        backbone: str = "resnet50",
        image_size: int = 224,
        head_type: HeadType = "linear",
        bottleneck_size: int = 512,
        activation: str = "relu",
        head_dropout: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.backbone = backbone
        self.image_size = image_size
        self.head_type = head_type
        self.bottleneck_size = bottleneck_size
        self.activation = activation
        self.head_dropout = head_dropout
        if head_type not in get_args(HeadType):
            raise ModelError(
                f"config.json: head_type must be one of: {', '.join(get_args(HeadType))}, got {head_type!r}"
            )
        super().__init__(**kwargs)


def register() -> None:
    """Register both configurations with AutoConfig."""
    AutoConfig.register(PooledClassifierConfig.model_type, PooledClassifierConfig, exist_ok=True)
    AutoConfig.register(ImageClassifierConfig.model_type, ImageClassifierConfig, exist_ok=True)


register()
