"""The heads that `vidtad train` knows how to train."""

from vidtad.heads.actionformer.recipe import ActionFormerRecipe
from vidtad.training.plan import ReActRecipe, Recipe

RECIPES: dict[str, Recipe] = {"react": ReActRecipe(), "actionformer": ActionFormerRecipe()}
