"""Options of a plan that Python may change: losses of both heads, as released or as the paper says."""

from typing import Any

import numpy as np
import pytest

from tests.heads.actionformer.test_recipe import facts
from vidtad.errors import InputError
from vidtad.heads.react.recipe import ReActRecipe
from vidtad.heads.react.training import ReActHead
from vidtad.models.react_losses import LossConfig
from vidtad.training.plan import planned, with_options
from vidtad.training.video import TrainingVideo


def head_with(**asked: Any) -> ReActHead:
    recipe = ReActRecipe()
    plan = planned(recipe, facts([8.0] * 20, rows=64, channels=4, classes=1), None, 2, "cpu")
    plan = with_options(plan, {"spliced": 0, **asked})
    values = np.zeros((64, 4), np.float32)
    return recipe.head(plan, [TrainingVideo("a", values, np.array([[5.0, 13.0]]), np.array([0]))])  # type: ignore[return-value]


def test_losses_of_react_are_the_released_ones_unless_asked() -> None:
    assert head_with().criterion.config == LossConfig()
    changed = head_with(losses={"iou_decay": 1.0, "mid_quality": "l1"}).criterion.config
    assert changed == LossConfig(iou_decay=1.0, mid_quality="l1")


@pytest.mark.parametrize("wrong", [{"loses": {}}, {"losses": {"iou_dekay": 1.0}}, {"losses": 3}])
def test_unknown_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"training options .* of losses segment"):
        head_with(**wrong)
