"""After `import nlp_ft`, Transformers' Auto classes know our models, whatever was imported before."""

import subprocess
import sys

import pytest

AUTO_CLASSES = ("transformers.models.auto.configuration_auto", "transformers.models.auto.modeling_auto")


@pytest.mark.parametrize(
    "imports",
    [
        f"import nlp_ft; from importlib.util import find_spec; [find_spec(name) for name in {AUTO_CLASSES}]",
        pytest.param("import nlp_ft, transformers.modeling_utils", marks=pytest.mark.slow),
        pytest.param("from transformers import AutoConfig; import nlp_ft", marks=pytest.mark.slow),
        pytest.param("import transformers.modeling_utils, nlp_ft", marks=pytest.mark.slow),
    ],
    ids=["found before it is imported", "before the models", "after the configurations", "after the models"],
)
def test_the_auto_classes_know_our_configurations_and_models(imports: str) -> None:
    code = f"""
{imports}
from transformers import AutoConfig
pooled, image = [AutoConfig.for_model(f"nlp_ft_{{name}}_classifier") for name in ("pooled", "image")]
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification
print(AutoModelForSequenceClassification._model_mapping[type(pooled)].__name__)
print(AutoModelForImageClassification._model_mapping[type(image)].__name__)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split() == ["PooledClassifier", "ImageClassifier"]
