"""What the estimators of scikit-learn share: their settings, the run that they fit, and how it is pickled."""

import tempfile
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from nlp_ft.api.fit import fit
from nlp_ft.api.run import Run
from nlp_ft.errors import DataError

NAMED = ("strategy", "lr", "head_lr", "layer_decay", "duration", "per_device_batch_size", "max_length")
"""Parameters of the estimators that are settings of a recipe."""


class RunEstimator(BaseEstimator):  # type: ignore[misc]
    """What the estimators share: settings, the run, pickling.

    Args:
        model: the pretrained encoder: a Hub id, a folder, or `package:NAME/PATH`.
        strategy: which layers train, and when.
        lr: base learning rate; None derives it.
        head_lr: learning rate of the head; None derives it.
        layer_decay: factor on the rate from each block to the next one below; None takes that of the strategy.
        duration: length of the run, such as `3ep` or `200st`; None derives it.
        per_device_batch_size: texts in a batch; None derives it.
        max_length: most tokens of a text.
        validation: share of the rows, such as `10%`, that chooses the best weights; None trains on all rows and keeps
            the last weights, because scikit-learn splits by itself.
        settings: further keywords of `nlp_ft.fit`, such as `{"pooling": "mean"}`.
        output_dir: the run folder, which a later `fit` replaces; None takes a temporary one, which goes with the
            estimator. Leave it None where several copies are fitted, as in a grid search.
        random_state: seed of the run; None is 0, so that a fit is repeated to the bit.
        level: how much is shown: `quiet`, `bar`, `normal` or `verbose`.
    """

    task: str

    def __init__(
        self,
        model: Any = None,
        *,
        strategy: str = "llrd",
        lr: float | None = None,
        head_lr: float | None = None,
        layer_decay: float | None = None,
        duration: str | None = None,
        per_device_batch_size: int | None = None,
        max_length: int = 128,
        validation: str | None = None,
        settings: Mapping[str, Any] | None = None,
        output_dir: str | Path | None = None,
        random_state: Any = None,
        level: Any = "quiet",
    ) -> None:
        self.model = model
        self.strategy = strategy
        self.lr = lr
        self.head_lr = head_lr
        self.layer_decay = layer_decay
        self.duration = duration
        self.per_device_batch_size = per_device_batch_size
        self.max_length = max_length
        self.validation = validation
        self.settings = settings
        self.output_dir = output_dir
        self.random_state = random_state
        self.level = level

    def _fit(self, data: Any, num_columns: int, **more: Any) -> Self:
        """Train on checked rows, in a form that `nlp_ft.fit` takes; `more` are further keywords of it."""
        if not isinstance(self.settings, Mapping | None):
            raise DataError(f'settings must be a mapping, such as {{"pooling": "mean"}}, got {self.settings!r}')
        keywords = {name: getattr(self, name) for name in NAMED if getattr(self, name) is not None}
        for name in NAMED:
            if (
                name in (self.settings or {})
                and getattr(self, name) != signature(RunEstimator).parameters[name].default
            ):
                raise DataError(f"{name} is given twice, as a parameter and in settings; give one")
        seed = 0 if self.random_state is None else int(check_random_state(self.random_state).randint(2**31))
        seed = int(self.random_state) if isinstance(self.random_state, int | np.integer) else seed
        temporary = tempfile.TemporaryDirectory(prefix="nlp_ft_") if self.output_dir is None else None
        run = fit(
            data,
            model=self.model,
            task=self.task,
            validation=self.validation or False,
            output_dir=Path(temporary.name) / "run" if temporary else self.output_dir,
            overwrite=True,
            level=self.level,
            **{"seed": seed, "baselines": False, **more, **keywords, **(self.settings or {})},
        )
        self.n_features_in_ = num_columns
        self._keep(run, temporary)
        return self

    def _keep(self, run: Run, temporary: "tempfile.TemporaryDirectory[str] | None") -> None:
        self.run_ = run
        self._temporary = temporary

    def __getstate__(self) -> dict[str, Any]:
        """The settings, and the files of the run folder, so that the pickle needs nothing beside it."""
        state = dict(super().__getstate__())
        run = state.pop("run_", None)
        state.pop("_temporary", None)
        if run is not None:
            run.check_unchanged()
            files = [file for file in sorted(run.folder.rglob("*")) if file.is_file()]
            state["_files"] = {str(file.relative_to(run.folder)): file.read_bytes() for file in files}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Write the files of the run folder into a new temporary one."""
        files = state.pop("_files", None)
        super().__setstate__(state)
        if files is not None:
            temporary = tempfile.TemporaryDirectory(prefix="nlp_ft_")
            for name, content in files.items():
                file = Path(temporary.name) / "run" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            self._keep(Run(Path(temporary.name) / "run"), temporary)
