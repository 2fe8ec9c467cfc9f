"""The parts that a config names, checked against their own signatures before anything is built."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from vistasks.config.schema import Config
from vistasks.registry import BACKBONES, DATASETS, HEADS, NECKS, PROPOSALS, SAMPLINGS, WEIGHTINGS, Registry

Keys = tuple[Any, ...]


def part_problems(config: Config) -> list[tuple[Keys, str]]:
    """What is wrong with the names and options of parts: (keys of the part, one line) each."""
    problems = []
    for registry, keys, options, given, key in _parts(config):
        try:
            registry.check(options, where=".".join(map(str, keys)), key=key, given=given)
        except ValueError as error:
            problems += [(keys, line) for line in str(error).splitlines()]
    return problems


def _parts(config: Config) -> Iterator[tuple[Registry, Keys, Mapping[str, Any], Collection[str], str]]:
    """(table, keys, options, keywords that the program gives, key of the name) of each part."""
    model, data = config.model, config.data
    yield BACKBONES, ("model", "backbone"), model.backbone, (), "name"
    if model.neck is not None:
        yield NECKS, ("model", "neck"), model.neck, ("in_channels",), "name"
    for task, head in model.heads.items():
        yield HEADS, ("model", "heads", task), head, ("trunk", "classes"), "name"
    yield WEIGHTINGS, ("model", "weighting"), model.weighting, ("tasks",), "name"
    yield PROPOSALS, ("proposals", "method"), config.proposals.method, (), "name"
    yield SAMPLINGS, ("train", "sampling"), config.train.sampling, ("dataset",), "name"
    yield DATASETS, ("data",), data.source("train"), (), "format"
    if data.evaluates and data.folds is None:
        yield DATASETS, ("data",), data.source("val"), (), "format"
    for index, source in enumerate(data.also):
        yield DATASETS, ("data", "also", index), source, (), "format"
