from __future__ import annotations

import pytest

from vistasks.commands.evaluate import refuse_ignored


@pytest.mark.parametrize(
    "override",
    [
        "input.min_side=99",
        "model.backbone.name=vgg",
        "train.epochs=3",
        "augment=[]",
        "output=x",
        "checkpoint.keep=1",
    ],
)
def test_a_value_that_an_evaluation_does_not_look_at_is_refused(override: str) -> None:
    with pytest.raises(ValueError, match=f"{override.partition('=')[0]}: has no effect"):
        refuse_ignored([override])


def test_values_that_an_evaluation_looks_at_are_taken() -> None:
    refuse_ignored(
        [
            "input.predict_scale=2",
            "model.heads.detection.decoding={nms: 0.3}",
            "data.root=x",
            "evaluate.batch_size=2",
            "model.heads.detection.decoding.nms=0.3",
            "proposals.cache=null",
            "seed=1",
        ]
    )
