"""The heads that `vidtad train` knows how to train."""

from vidtad.pipelines.actionformer_recipe import ActionFormerRecipe
from vidtad.pipelines.training_settings import ReActRecipe, Recipe

RECIPES: dict[str, Recipe] = {"react": ReActRecipe(), "actionformer": ActionFormerRecipe()}
