"""Hyper-parameter search: many trainings of one config, each with other values, chosen by optuna (the extra
``search``).

The study is an SQLite file; a search that was stopped goes on where it stood, the training that was cut off
from its checkpoint."""

from __future__ import annotations

import copy
import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from vistasks.config import Config, apply_override, parse_config, read_yaml
from vistasks.system.atomic import write_text
from vistasks.system.locks import owned
from vistasks.training.run_folder import LAST

Results = Mapping[str, float | None]
FAILURES = (ValueError, FloatingPointError, OSError)  # of one training; the next may do better


class Range(BaseModel):
    """What one value may be: ``{low, high}`` (whole numbers if both are), with ``log: true`` or a ``step``;
    or ``{choices}``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: list[bool | int | float | str | None] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Range:
        if self.choices is not None:
            if (
                self.low is not None
                or self.high is not None
                or self.log
                or self.step is not None
                or not self.choices
            ):
                raise ValueError("give a list of choices alone, or low and high")
        elif self.low is None or self.high is None or self.low >= self.high:
            raise ValueError(f"needs low < high, or choices; received low {self.low}, high {self.high}")
        elif self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log: true needs low > 0 and no step")
        return self

    def suggest(self, trial: Any, name: str) -> Any:
        """A value, drawn by an optuna trial."""
        if self.choices is not None:
            return trial.suggest_categorical(name, self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log, step=int(self.step or 1))
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)


def read_space(path: str | Path) -> dict[str, Range]:
    """A YAML file of ``key.path: {low: ..., high: ..., log: true}`` or ``{choices: [...]}``; errors name file
    and key.
    """
    values, lines = read_yaml(Path(path))
    space, faults = {}, []
    for name, options in values.items():
        place = f"{path}:{lines.get((name,), 1)}: {name}"
        try:
            space[str(name)] = Range.model_validate(options)
        except ValidationError as error:
            for detail in error.errors():
                key = ".".join(["", *map(str, detail["loc"])])
                own = detail["type"] == "value_error"
                faults.append(f"{place}{key}: {detail['ctx']['error'] if own else detail['msg']}")
    if faults or not space:
        raise ValueError("\n".join(faults) or f"{path}: no value to search")
    return space


def search(
    values: Mapping[str, Any],
    space: Mapping[str, Range],
    *,
    folder: Path,
    trials: int,
    train: Callable[..., Results],
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Runs trainings until ``trials`` have ended well, those of earlier calls included.

    Args:
        values: the plain values of the config that is varied.
        space: key path -> what it may be.
        folder: search.db and each training's run folder go here.
        trials: how many in all.
        train: `vistasks.training.loop.train`.
        say: shows a line.

    Returns:
        ``value`` and ``overrides`` of the best training, its ``folder``, and how many ended (``trials``).

    Raises:
        ImportError: optuna is not installed.
        ValueError: a key path that the config cannot have; another space in the folder; no training ended
            well.
    """
    optuna = _optuna()
    base = varied(
        values, {name: _any(found) for name, found in space.items()}, folder / "check"
    )  # faults now, not in trial 7
    with owned(folder):
        storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / 'search.db').absolute()}")
        try:
            sampler = optuna.samplers.TPESampler(seed=base.seed)
            study = optuna.create_study(
                storage=storage,
                study_name="vistasks",
                load_if_exists=True,
                direction="maximize",
                sampler=sampler,
            )
            _same_space(study, space, folder)
            _take_up(optuna, study, say)
            _run(optuna, study, _objective(values, space, folder, train, base, say), trials, folder)
            return _best(study, folder)
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _objective(
    values: Mapping[str, Any],
    space: Mapping[str, Range],
    folder: Path,
    train: Callable[..., Results],
    base: Config,
    say: Callable[[str], None],
) -> Callable[[Any], float]:
    """One training, as optuna calls it."""

    def objective(trial: Any) -> float:
        chosen = {name: found.suggest(trial, name) for name, found in space.items()}
        run = Path(trial.user_attrs.get("folder") or folder / f"trial_{trial.number:04d}")
        trial.set_user_attr("folder", str(run))
        trial.set_user_attr("process", _process())
        say(f"trial {trial.number}: {' '.join(f'{name}={value}' for name, value in chosen.items())}")
        try:
            results = train(varied(values, chosen, run), resume=(run / LAST).exists())
            return _monitored(results, base)
        except FAILURES as error:
            say(f"trial {trial.number} failed: {error}")
            raise
        except BaseException:  # Ctrl-C or a signal
            trial.set_user_attr("cut_off", True)
            raise

    return objective


def _run(optuna: Any, study: Any, objective: Callable[[Any], float], trials: int, folder: Path) -> None:
    """Until ``trials`` have ended well, or five in a row have failed."""

    def ended() -> int:
        return sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials)

    failed = 0
    while ended() < trials:
        done = ended()
        study.optimize(objective, n_trials=1, catch=FAILURES)
        failed = 0 if ended() > done else failed + 1
        if failed == 5:
            raise ValueError(f"search: five trainings in a row failed ({folder}); see the errors above")


def varied(values: Mapping[str, Any], chosen: Mapping[str, Any], run: Path) -> Config:
    """The config with other values and its own run folder; errors name the key."""
    plain = copy.deepcopy(dict(values))
    for name, value in chosen.items():
        apply_override(plain, f"{name}={json.dumps(value)}")
    plain["output"] = str(run)
    return parse_config(plain, where=lambda keys: "search")


def _any(found: Range) -> Any:
    return found.choices[0] if found.choices is not None else found.low


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError("search needs optuna: pip install 'vistasks[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _same_space(study: Any, space: Mapping[str, Range], folder: Path) -> None:
    now = {name: found.model_dump() for name, found in space.items()}
    before = study.user_attrs.get("space")
    if before is not None and before != now:
        raise ValueError(
            f"search: {folder / 'search.db'} has a different search space; choose another folder with output=..."
        )
    study.set_user_attr("space", now)


def _process() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def _take_up(optuna: Any, study: Any, say: Callable[[str], None]) -> None:
    """Trainings that were cut off come first; those that another living process of this machine runs are left
    alone.
    """
    states = optuna.trial.TrialState
    taken_up = list(study.user_attrs.get("taken_up", []))
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING, states.FAIL)):
        if trial.state == states.RUNNING:
            host, _, number = trial.user_attrs.get("process", f"{socket.gethostname()} 0").partition(" ")
            if host != socket.gethostname() or (int(number) != os.getpid() and _alive(int(number))):
                continue
            study.tell(trial.number, state=states.FAIL)
        elif not trial.user_attrs.get("cut_off") or trial.number in taken_up:
            continue
        taken_up.append(trial.number)
        study.set_user_attr("taken_up", taken_up)
        study.enqueue_trial(trial.params, user_attrs={"folder": trial.user_attrs.get("folder")})
        say(f"trial {trial.number} was cut off and is taken up again")


def _alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OSError):
        return False
    return number > 0


def _monitored(results: Results, config: Config) -> float:
    wanted = [config.train.monitor] if config.train.monitor else ["AP", "mIoU"]
    present = [value for value in (results.get(name) for name in wanted) if value is not None]
    if not present:
        raise ValueError(
            f"search: the training has no result to compare ({', '.join(wanted)}); name data.val and train.monitor"
        )
    return sum(present) / len(present)


def _best(study: Any, folder: Path) -> dict[str, Any]:
    best = study.best_trial
    found = {
        "value": best.value,
        "overrides": [f"{name}={json.dumps(value)}" for name, value in best.params.items()],
        "folder": best.user_attrs["folder"],
        "trials": [
            {"number": trial.number, "state": trial.state.name, "value": trial.value, "params": trial.params}
            for trial in study.trials
        ],
    }
    write_text(folder / "search.json", json.dumps(found, indent=1))
    return found
