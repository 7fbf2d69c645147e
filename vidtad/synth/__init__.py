"""Generated demonstration clips: articulated stick people, textured moving backgrounds, exact truth.

Everything is drawn from a seed; nothing is copied from recorded footage, so clips and whatever is trained
on them carry no licence but this package's.
"""

from vidtad.synth.draw import render
from vidtad.synth.spec import CLASSES, LEVELS, Action, Level, PersonTruth, Truth
from vidtad.synth.write import refuse_other_clips, write_clips

__all__ = [
    "CLASSES",
    "LEVELS",
    "Action",
    "Level",
    "PersonTruth",
    "Truth",
    "refuse_other_clips",
    "render",
    "write_clips",
]
