"""What the rest of the program must know about a head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np

    from vidtad.heads.person.parts import PersonParts
    from vidtad.hub.bundle import Bundle
    from vidtad.postprocess import Detections
    from vidtad.progress import Progress
    from vidtad.training.plan import Recipe

TEMPORAL = "temporal detection"
SPATIO_TEMPORAL = "spatio-temporal detection"

Converter = Callable[[Any, str], "Bundle"]
"""(contents of a published checkpoint, SHA-256 of its file) -> bundle. Raises InputError for other weights."""

LayoutReader = Callable[[Any, str, "Sequence[str] | None", str], "Bundle"]
"""(contents, preset, class names or None for the preset's, SHA-256 of the file) -> bundle. Raises InputError."""


class TemporalDetector(Protocol):
    """A head with its weights: the features of a whole video to detections, whatever its length.

    `precision` is that of its arithmetic, `display_score` the score from which a segment is worth showing in a table,
    `warnings` what the user should know about the last call.
    """

    bundle: Bundle
    precision: str
    display_score: float
    warnings: tuple[str, ...]

    def __call__(self, values: np.ndarray, progress: Progress = ...) -> Detections:
        """values (T, C) float32 -> detections in step positions: step i covers [i, i + 1], best first."""


@dataclass(frozen=True)
class HeadSpec:
    """One head, as `HEADS` lists it. The module that holds it imports no torch: its callables import what they need."""

    name: str
    """What `--model` and the `head` of a bundle say."""
    says: str
    """One line about it, for lists."""
    task: str
    """TEMPORAL, or SPATIO_TEMPORAL for a head that says who does it."""
    feeds: Literal["features", "person clips", "frames"]
    """What it reads: features of a video, clips around keyframes with person boxes, or the frames themselves."""
    decoding: Callable[[], type]
    """Its dataclass of post-processing options; the defaults hold where a bundle says nothing."""
    load: Callable[[Bundle, str, str], TemporalDetector] | None = None
    """(bundle, device, precision) -> detector, of a head that reads features. Raises InputError for a misfit."""
    recipe: Callable[[], Recipe] | None = None
    """How it is trained on features; None: it is not."""
    parts: Callable[[], PersonParts] | None = None
    """Network, configuration and backbones of a head that reads person clips."""
    converters: Mapping[str, Converter] = field(default_factory=dict)
    """Published checkpoints that are whole detectors of this head, by id."""
    layouts: Mapping[str, LayoutReader] = field(default_factory=dict)
    """Whose checkpoint files become bundles of this head: the words of `models convert --from`."""
    preferred: tuple[str, ...] = ()
    """Bundles that the bare name means when they are on this machine, best first."""
    classless: bool = False
    """Whether it tells no classes apart: its single label stands for any action, and is scored as such."""

    @property
    def tells_who(self) -> bool:
        """Whether it says who does what."""
        return self.task == SPATIO_TEMPORAL
