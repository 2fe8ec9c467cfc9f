"""``vistasks study joint``: detection alone, segmentation alone and both over one trunk, at equal budgets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vistasks.build import build_dataset, build_proposals
from vistasks.config import Config, to_json
from vistasks.proposals.commands import compute_command
from vistasks.studies.joint_part import JOINT, part_config, parts_of, run_part, time_steps
from vistasks.studies.tables import markdown, print_rows
from vistasks.system.atomic import write_text
from vistasks.system.isolation import Work, in_own_process


def study_joint(
    config: Config,
    output: Path,
    *,
    epochs: int | None = None,
    minutes: float | None = None,
    isolate: bool = True,
) -> dict[str, Any]:
    """Trains the three parts one after the other and returns what they show beside one another.

    Writes into ``output``: a run folder for each part, PART.json when it is finished, study.json and
    study.md. Run again, it goes on where it was: finished parts are not trained again, and a part that was
    cut off is resumed.

    Args:
        config: with both heads.
        output: the study's folder.
        epochs: of each part; None: the config's.
        minutes: of training steps for each part instead, turned into whole epochs by timing a few steps of
            each first.
        isolate: each part in its own process; False for tests.

    Raises:
        ValueError: a config without two heads or an evaluation, or a folder that holds another study.
    """
    _check(config, epochs, minutes)
    work: Callable[[Work, Any], dict[str, Any]] = (
        in_own_process if isolate else lambda job, arguments: job(*arguments)
    )
    plan = _plan(config, output, {"epochs": epochs, "minutes": minutes}, work)
    facts = {}
    for part in parts_of(config):
        finished = output / f"{part}.json"
        if not finished.is_file():
            print(f"\n{part}: {plan['epochs'][part]} epochs", flush=True)
            work(
                run_part,
                (part_config(config, part, output, plan["epochs"][part]).model_dump(), str(finished)),
            )
        facts[part] = json.loads(finished.read_text(encoding="utf-8"))
    study = {**plan, "parts": facts, "joint_minus_alone": _differences(facts)}
    write_text(output / "study.json", json.dumps(study, indent=1))
    write_text(output / "study.md", markdown(rows(study)))
    return study


def _check(config: Config, epochs: int | None, minutes: float | None) -> None:
    if len(config.model.heads) != 2:
        raise ValueError(
            f"study joint compares two heads with one; model.heads has {', '.join(config.model.heads)}"
        )
    if not config.data.evaluates:
        raise ValueError("study joint needs validation data: set data.val")
    if config.train.devices > 1:
        raise ValueError("study joint trains on one device; set train.devices to 1")
    if epochs is not None and minutes is not None:
        raise ValueError("give --epochs or --minutes, not both")
    if (epochs is not None and epochs < 1) or (minutes is not None and minutes <= 0):
        raise ValueError(f"the budget must be positive; received {epochs if minutes is None else minutes}")


def _plan(config: Config, output: Path, budget: dict[str, Any], work: Any) -> dict[str, Any]:
    """What is trained for how many epochs; that of an earlier session where there is one."""
    described = {**to_json(config), "output": None}
    path = output / "plan.json"
    if path.is_file():
        plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in described if plan["config"].get(key) != described[key]]
        changed += ["budget"] if plan["budget"] != budget else []
        if changed:
            raise ValueError(
                f"{output.resolve()} holds a study whose {', '.join(changed)} differs from what is asked for now; "
                "choose another --output, or remove it"
            )
        return plan
    if config.proposals.cache is not None:  # or the first part would pay for all
        for name in ("train", "val"):
            method = build_proposals(config.proposals)
            if method.key is not None:
                compute_command(build_dataset(config, name), method)
    chosen = dict.fromkeys(parts_of(config), budget["epochs"] or config.train.epochs)
    timing = {}
    if budget["minutes"] is not None:
        for part in parts_of(config):
            timing[part] = work(time_steps, (part_config(config, part, output, 1).model_dump(),))
            chosen[part] = max(1, round(60 * budget["minutes"] / timing[part]["epoch_seconds"]))
            print(f"{part}: {timing[part]['step_seconds']:.3f} s a step, {chosen[part]} epochs", flush=True)
    plan = {"config": described, "budget": budget, "epochs": chosen, "timing": timing}
    output.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(plan, indent=1))
    return plan


def _differences(facts: Mapping[str, Any]) -> dict[str, float]:
    """Joint minus alone, for every result that both have."""
    joint, found = facts["joint"]["results"], {}
    for part in (name for name in facts if name != JOINT):
        for name, value in facts[part]["results"].items():
            if value is not None and joint.get(name) is not None:
                found[name] = round(joint[name] - value, 5)
    return found


def rows(study: Mapping[str, Any]) -> list[list[str]]:
    """The table of a study: a header, then one row a figure."""
    parts, differences = study["parts"], study["joint_minus_alone"]
    names = list(parts)
    table = [["", *names, "joint - alone"]]
    for name in parts["joint"]["results"]:
        values = [_number(parts[part]["results"].get(name), ".4f") for part in names]
        table.append([name, *values, _number(differences.get(name), "+.4f")])
    alone = [name for name in names if name != JOINT]
    for name, title, form in (
        ("epochs", "epochs", "d"),
        ("training_seconds", "training, s", ".0f"),
        ("training_peak_memory_mib", "training, peak MiB", "d"),
        ("pass_seconds", "one pass, s", ".3f"),
        ("parameters_millions", "parameters, M", ".2f"),
    ):
        share = parts["joint"][name] / max(1e-9, sum(parts[part][name] for part in alone))
        ratio = "" if name == "epochs" else f"{share:.2f} of both"
        table.append([title, *(_number(parts[part][name], form) for part in names), ratio])
    for when, found in parts["joint"]["gradients"].items():
        text = f"{found['cosine']:+.3f} ({found['share_below_0']:.0%} of {found['batches']} batches below 0)"
        table.append([f"gradient cosine {when}", "", "", text, ""])
    factors = ", ".join(f"{task} {value:.3g}" for task, value in parts["joint"]["factors"].items())
    table.append(["factors at the end", "", "", factors, ""])
    return table


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def print_study(study: Mapping[str, Any]) -> None:
    """The table on the screen."""
    print_rows(rows(study), title="joint beside alone")
