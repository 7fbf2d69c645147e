"""The heads that `vidtad train` knows how to train."""

from vidtad.pipelines.training.actionformer import ActionFormerRecipe
from vidtad.pipelines.training.settings import ReActRecipe, Recipe

RECIPES: dict[str, Recipe] = {"react": ReActRecipe(), "actionformer": ActionFormerRecipe()}
