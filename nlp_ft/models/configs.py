"""The configurations of our two model classes, registered with Transformers' AutoConfig when this is imported.

They stand apart from the models, because AutoConfig is imported before the base class of models is defined.
"""

from typing import Any, get_args

from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto.configuration_auto import AutoConfig

from nlp_ft.errors import ModelError
from nlp_ft.models.heads import HeadType
from nlp_ft.models.pooling import ClsPosition, Pooling


class PooledClassifierConfig(PreTrainedConfig):
    """Configuration of a `PooledClassifier`: that of the encoder, and how its output becomes logits."""

    model_type = "nlp_ft_pooled_classifier"
    sub_configs = {"encoder_config": AutoConfig}  # noqa: RUF012  # as PreTrainedConfig declares it

    def __init__(
        self,
        encoder_config: PreTrainedConfig | dict[str, Any] | None = None,
        pooling: Pooling = "mean",
        cls_position: ClsPosition = "first",
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
        self.head_type = head_type
        self.bottleneck_size = bottleneck_size
        self.activation = activation
        self.head_dropout = head_dropout
        super().__init__(**kwargs)


class ImageClassifierConfig(PreTrainedConfig):
    """Configuration of an `ImageClassifier`: the torchvision network and its head; `image_size` in pixels."""

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
    """Make AutoConfig know the model types."""
    AutoConfig.register(PooledClassifierConfig.model_type, PooledClassifierConfig, exist_ok=True)
    AutoConfig.register(ImageClassifierConfig.model_type, ImageClassifierConfig, exist_ok=True)


register()
