"""Applies an `UnfreezeSchedule` to a run: which layers train at a step, by which factor, and when a phase begins.

The answers depend on the step and on a small `UnfreezeState`, which records the phases that a metric or a loss has
begun. A checkpoint holds the state, so a resumed run decides as the unbroken run would.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral

from nlp_ft.durations import Duration
from nlp_ft.errors import UnfreezeError
from nlp_ft.layerwise.unfreezing.schedule import UnfreezeSchedule
from nlp_ft.layerwise.unfreezing.triggers import LossBelow, Plateau, Trigger, is_better


@dataclass
class UnfreezeState:
    """The decisions of a plan so far, as plain values for a checkpoint.

    Args:
        starts: step at which each phase so far began; the last of them is running.
        best: best value of the awaited metric within the running phase; None before the first evaluation.
        waited: number of evaluations since the best value.
    """

    starts: list[int] = field(default_factory=lambda: [0])
    best: float | None = None
    waited: int = 0


class UnfreezePlan:
    """An `UnfreezeSchedule` over a run of known length.

    Args:
        schedule: the phases.
        total_steps: optimizer steps of the run.
        steps_per_epoch: optimizer steps of an epoch.

    Raises:
        UnfreezeError: a phase would begin after the end of the run, or not after the phase before it; its at_least is
            above its at_most, or as long as the run; or a number of steps is not whole.
    """

    def __init__(self, schedule: UnfreezeSchedule, total_steps: int, steps_per_epoch: int) -> None:
        for name, value in (("total_steps", total_steps), ("steps_per_epoch", steps_per_epoch)):
            if not isinstance(value, Integral):
                raise UnfreezeError(f"{name} must be a whole number, got {value!r}")
        self.schedule = schedule
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        self.layer_warmup = self._steps(schedule.layer_warmup)
        latest = 0
        for number, phase in enumerate(schedule.phases):
            if not isinstance(phase.start, Duration):
                self._check_bounds(number + 1, phase.start)
                continue
            start = self._steps(phase.start)
            names = schedule.layer_names(phase.layers)
            if number and start == latest:
                raise UnfreezeError(
                    f"phase {number + 1} ({names}) would begin at step {start} together with the phase before it: the "
                    f"run of {total_steps} steps is too short for {len(schedule.phases)} phases; make it longer, or "
                    "the phases fewer (blocks_per_phase)"
                )
            if number and start < latest:
                raise UnfreezeError(f"phase {number + 1} begins at step {start}, not after the phase before ({latest})")
            if start >= total_steps:
                raise UnfreezeError(
                    f"phase {number + 1} ({names}) would begin at step {start}, but the "
                    f"run ends at step {total_steps}; make the run longer, the phases shorter or fewer, or let layers "
                    "stay frozen"
                )
            latest = start

    def require_signals(
        self, evaluate_every: int | None, record_every: int | None, how: Mapping[str, str], evaluate_from: int = 0
    ) -> None:
        """Check that what a phase waits for, an evaluation or a training loss, comes before the run ends.

        Each phase is looked at by itself: those before it may take so long that the run ends in one of them.

        Args:
            evaluate_every: steps between evaluations; None if there are none.
            record_every: steps between records of the training loss; None if there are none.
            how: advice for the error message, under the keys `evaluate` and `record`.
            evaluate_from: step before which there is no evaluation.

        Raises:
            UnfreezeError: evaluations or records come too seldom or not at all, so a phase would never begin.
        """
        for number, phase in enumerate(self.schedule.phases[1:], start=2):
            start = phase.start
            if isinstance(start, Duration) or start.at_most is not None:
                continue
            what, every, needed = (
                ("evaluation(s)", evaluate_every, start.patience + 1)
                if isinstance(start, Plateau)
                else ("record(s) of the training loss", record_every, 1)
            )
            # An evaluation or a record at the last step is too late to begin a phase.
            found = 0 if every is None else (self.total_steps - 1) // every
            if every is not None and isinstance(start, Plateau) and evaluate_from > 0:
                found = max(0, found - (evaluate_from - 1) // every)
            if found < needed:
                names = self.schedule.layer_names(phase.layers)
                raise UnfreezeError(
                    f"phase {number} ({names}) waits for {start}, which takes {needed} {what}, but the run of "
                    f"{self.total_steps} steps has {found} before its end, so that it would never begin; "
                    f"{how['evaluate' if isinstance(start, Plateau) else 'record']}, or set at_most"
                )

    def check_state(self, state: UnfreezeState) -> None:
        """Check that a state can be one of this plan. Raises `UnfreezeError`."""
        if not isinstance(state, UnfreezeState):
            raise UnfreezeError(f"expected an UnfreezeState, got {state!r}; make one with UnfreezeState(**values)")
        if not 1 <= len(state.starts) <= len(self.schedule.phases):
            raise UnfreezeError(
                f"the state is of another plan: it has begun {len(state.starts)} phases, and this plan has "
                f"{len(self.schedule.phases)}"
            )

    @property
    def moves_rates(self) -> bool:
        """Whether the plan changes learning rates, in addition to the learning-rate schedule of the run."""
        phases = self.schedule.phases
        return self.schedule.restart_lr or self.layer_warmup > 0 or any(phase.lr_scale != 1 for phase in phases)

    def layers(self, state: UnfreezeState) -> frozenset[int]:
        """Return the ids of the layers that train in the running phase."""
        return self.schedule.phases[len(state.starts) - 1].layers

    def reasons(self, state: UnfreezeState) -> list[str]:
        """Say why each phase so far began."""
        found = ["the run began"]
        pairs = zip(self.schedule.phases[1:], state.starts, state.starts[1:])
        for phase, before, step in pairs:
            start = phase.start
            if isinstance(start, Duration):
                found.append(f"{start} of the run had passed")
            elif start.at_most is not None and step - before >= self._steps(start.at_most):
                found.append(f"at_most {start.at_most} had passed, without {start}")
            else:
                found.append(str(start))
        return found

    def is_last(self, state: UnfreezeState) -> bool:
        """Whether the running phase is the last one."""
        return len(state.starts) == len(self.schedule.phases)

    def on_step(self, state: UnfreezeState, step: int) -> bool:
        """Begin the phases that are due before update `step` (from 0); return whether one began.

        Several are due if a loop starts in the middle of a run. None begins when all updates are done.
        """
        began = False
        while (following := self._following(state)) is not None:
            if isinstance(following, Duration):
                begin = max(self._steps(following), state.starts[-1])
            elif following.at_most is not None:
                begin = state.starts[-1] + self._steps(following.at_most)
            else:
                break
            if step < begin or begin >= self.total_steps:
                break
            began = self._begin(state, begin)
        return began

    def on_scores(self, state: UnfreezeState, step: int, scores: Mapping[str, float]) -> bool:
        """Note the scores of an evaluation.

        Args:
            state: the state of the plan, which is changed.
            step: number of updates before the evaluation.
            scores: name of each metric -> its value.

        Returns:
            Whether the scores begin the next phase.

        Raises:
            UnfreezeError: the awaited metric is not among the scores.
        """
        following = self._following(state)
        if not isinstance(following, Plateau):
            return False
        if following.metric not in scores:
            raise UnfreezeError(f"no metric {following.metric!r} to wait for; there are {', '.join(scores)}")
        value = scores[following.metric]
        if is_better(following.metric, value, state.best, following.min_delta):
            state.best, state.waited = value, 0
        else:
            state.waited += 1
        done = state.waited >= following.patience and self._may_end(state, step, following.at_least)
        return done and self._begin(state, step)

    def on_loss(self, state: UnfreezeState, step: int, loss: float) -> bool:
        """Note a mean training loss.

        Args:
            state: the state of the plan, which is changed.
            step: number of updates so far.
            loss: mean training loss since the last record.

        Returns:
            Whether the loss begins the next phase.
        """
        following = self._following(state)
        if not isinstance(following, LossBelow):
            return False
        return loss < following.value and self._may_end(state, step, following.at_least) and self._begin(state, step)

    def awaited_metric(self, state: UnfreezeState) -> str | None:
        """Return the metric whose plateau begins the next phase; None if the next phase waits for no metric."""
        following = self._following(state)
        return following.metric if isinstance(following, Plateau) else None

    def never_trained(self, state: UnfreezeState) -> frozenset[int]:
        """Return the ids of the layers that train in no phase so far, though a later one trains them."""
        begun = self.schedule.phases[: len(state.starts)]
        return self.schedule.layers_ever_trained.difference(*(phase.layers for phase in begun))

    def unfrozen_at(self, state: UnfreezeState, layer: int) -> int | None:
        """Return the step since which a layer has trained without a break; None while it is frozen."""
        begun = None
        for phase, start in zip(self.schedule.phases, state.starts):
            begun = (start if begun is None else begun) if layer in phase.layers else None
        return begun

    def lr_scale(self, state: UnfreezeState, step: int, layer: int) -> float:
        """Compute the factor on a layer's learning rate in addition to the learning-rate schedule.

        Args:
            state: the state of the plan.
            step: number of the update, from 0.
            layer: id of the layer.

        Returns:
            0 while the layer is frozen; otherwise the `lr_scale` of the phase times the warm-up of the layer.
        """
        unfrozen = self.unfrozen_at(state, layer)
        if unfrozen is None:
            return 0.0
        scale = self.schedule.phases[len(state.starts) - 1].lr_scale
        if unfrozen > 0 and step - unfrozen < self.layer_warmup:
            scale *= (step - unfrozen + 1) / (self.layer_warmup + 1)
        return scale

    def lr_span(self, state: UnfreezeState) -> tuple[int, int]:
        """Return the first step and the length of the learning-rate schedule: the run, or with restarts the phase."""
        if not self.schedule.restart_lr:
            return 0, self.total_steps
        start, following = state.starts[-1], self._following(state)
        end = self._steps(following) if isinstance(following, Duration) else self.total_steps
        if not isinstance(following, Duration) and following is not None and following.at_most is not None:
            end = start + self._steps(following.at_most)
        return start, min(end, self.total_steps) - start

    def expected_starts(self) -> list[int | None]:
        """Return the step at which each phase begins; None for a phase that a condition begins."""
        starts = (phase.start for phase in self.schedule.phases)
        return [self._steps(start) if isinstance(start, Duration) else None for start in starts]

    def _check_bounds(self, number: int, start: Plateau | LossBelow) -> None:
        low, high = start.at_least, start.at_most
        if self._steps(low) >= self.total_steps:
            raise UnfreezeError(
                f"phase {number} would never begin: the one before it lasts at least {low} ({self._steps(low)} steps), "
                f"and the run ends at step {self.total_steps}; make at_least shorter or the run longer"
            )
        if high is not None and self._steps(high) < max(1, self._steps(low)):
            raise UnfreezeError(
                f"phase {number} begins at most {high} ({self._steps(high)} steps) after the one before it, which is "
                f"shorter than at_least {low} ({self._steps(low)} steps) or no step at all; make at_most longer"
            )

    def _steps(self, duration: Duration) -> int:
        return duration.steps(self.steps_per_epoch, self.total_steps)

    def _following(self, state: UnfreezeState) -> Trigger | None:
        return None if self.is_last(state) else self.schedule.phases[len(state.starts)].start

    def _may_end(self, state: UnfreezeState, step: int, at_least: Duration) -> bool:
        """Whether the running phase is long enough, and updates are left for the next one."""
        return step < self.total_steps and step - state.starts[-1] >= self._steps(at_least)

    def _begin(self, state: UnfreezeState, step: int) -> bool:
        state.starts.append(step)
        state.best, state.waited = None, 0
        return True
