"""Generated demonstration clips: articulated stick people, textured moving backgrounds, exact truth.

Everything is drawn from a seed; nothing is copied from recorded footage, so clips and whatever is trained
on them carry no licence but this package's.
"""

from vidtad.synth.draw import render
from vidtad.synth.people import PEOPLE_CLASSES, render_people, write_people_clips
from vidtad.synth.spec import CLASSES, LEVELS, Action, Level, PersonTruth, Truth
from vidtad.synth.write import refuse_other_clips, write_clips

__all__ = [
    "CLASSES",
    "LEVELS",
    "PEOPLE_CLASSES",
    "Action",
    "Level",
    "PersonTruth",
    "Truth",
    "refuse_other_clips",
    "render",
    "render_people",
    "write_clips",
    "write_people_clips",
]
