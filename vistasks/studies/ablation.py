"""``vistasks study ablation``: one config and what single changes to it do, at equal epochs."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vistasks.config import apply_override, parse_config, read_yaml, to_json
from vistasks.studies.joint_part import run_part
from vistasks.studies.tables import markdown, print_rows
from vistasks.system.atomic import write_text
from vistasks.system.isolation import in_own_process

BASE = "as it is"
Changes = Mapping[str, Sequence[str]]


def read_changes(path: str | Path) -> dict[str, list[str]]:
    """A YAML file of ``name: [key.path=value, ...]``; the name is the row's. Errors name file and key."""
    values, lines = read_yaml(Path(path))
    changes: dict[str, list[str]] = {}
    for name, overrides in values.items():
        texts = [overrides] if isinstance(overrides, str) else overrides
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            at = f"{path}:{lines.get((name,), 1)}: {name}"
            raise ValueError(
                f"{at}: expected a list of key.path=value, such as [train.ema=null]; received {overrides!r}"
            )
        changes[str(name)] = texts
    if not changes:
        raise ValueError(f"{path}: no change to study; expected lines such as 'no EMA: [train.ema=null]'")
    return changes


def study_ablation(
    values: Mapping[str, Any],
    changes: Changes,
    output: Path,
    *,
    epochs: int | None = None,
    isolate: bool = True,
) -> dict[str, Any]:
    """Trains the config as it is and once with each change; returns what they show beside one another.

    Writes into ``output``: a run folder and a NAME.json for each, study.json and study.md. Run again, it goes
    on where it was; changes may be added then.

    Args:
        values: the plain values of the config (`vistasks.config.files.read_config`).
        changes: row's name -> the values to change, as on the command line.
        output: the study's folder.
        epochs: of each training; None: the config's, or the change's.
        isolate: each training in its own process, so that its peak memory is its own; False for tests.

    Raises:
        ValueError: a change that the config cannot have, no evaluation, or a folder that holds another study.
    """
    planned = {
        name: _changed(values, overrides, output, name, epochs)
        for name, overrides in {BASE: (), **changes}.items()
    }
    _same_study(output, planned)
    facts: dict[str, Any] = {}
    for number, (name, plan) in enumerate(planned.items()):
        finished = output / f"{_folder(name)}.json"
        if not finished.is_file():
            print(f"\n{number + 1} of {len(planned)}: {name}", flush=True)
            if isolate:
                in_own_process(run_part, (plan, str(finished)))
            else:
                run_part(plan, str(finished))
        facts[name] = json.loads(finished.read_text(encoding="utf-8"))
    study = {"changes": {name: list(overrides) for name, overrides in changes.items()}, "trainings": facts}
    write_text(output / "study.json", json.dumps(study, indent=1))
    write_text(output / "study.md", markdown(rows(study)))
    return study


def _changed(
    values: Mapping[str, Any], overrides: Sequence[str], output: Path, name: str, epochs: int | None
) -> dict[str, Any]:
    """The config's plain values with the changes, checked; the run folder lies in ``output``."""
    changed = copy.deepcopy(dict(values))
    try:
        for override in overrides:
            apply_override(changed, override)
        changed["output"] = str(output / _folder(name))
        if epochs is not None:
            changed.setdefault("train", {})["epochs"] = epochs
        config = parse_config(changed)
    except ValueError as error:
        raise ValueError(f"change '{name}': {error}") from None
    if not config.data.evaluates:
        raise ValueError("study ablation needs validation data: set data.val")
    return to_json(config)


def _folder(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in name)


def _same_study(output: Path, planned: Mapping[str, dict[str, Any]]) -> None:
    """Refuses a folder in which a training of that name has another config; remembers those of now."""
    path = output / "plan.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name, plan in planned.items():
        before = known.get(name, plan)
        differing = [key for key in plan if before.get(key) != plan[key]]
        if differing:
            raise ValueError(
                f"{output.resolve()} holds a study in which '{name}' has another {', '.join(differing)}; "
                "choose another --output, or remove it"
            )
    if len({_folder(name) for name in planned}) < len(planned):
        raise ValueError(f"two changes have the same folder name: {', '.join(planned)}; rename one")
    output.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({**known, **planned}, indent=1))


def rows(study: Mapping[str, Any]) -> list[list[str]]:
    """The table: a header, the config as it is, then each change, with the differences to it in brackets."""
    trainings, base = study["trainings"], study["trainings"][BASE]
    names = [name for name in base["results"] if base["results"][name] is not None]
    table = [["", *names, "epochs", "training, s", "peak MiB", "one pass, s"]]
    for row, facts in trainings.items():
        cells = [row]
        for name in names:
            value = facts["results"].get(name)
            difference = "" if row == BASE or value is None else f" ({value - base['results'][name]:+.3f})"
            cells.append("" if value is None else f"{value:.3f}{difference}")
        cells += [
            str(facts["epochs"]),
            f"{facts['training_seconds']:.0f}",
            str(facts["training_peak_memory_mib"]),
        ]
        table.append([*cells, f"{facts['pass_seconds']:.3f}"])
    return table


def print_study(study: Mapping[str, Any]) -> None:
    """The table on the screen."""
    print_rows(rows(study), title="single changes")
