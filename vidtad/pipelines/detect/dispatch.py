"""Which bundle a model's name means, and which worker serves a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING

from vidtad.errors import InputError
from vidtad.heads.catalogue import bundle_path, resolve_model
from vidtad.heads.registry import HEADS, head_of
from vidtad.hub.bundle import Bundle
from vidtad.pipelines.detect.motion import MotionWorker
from vidtad.pipelines.detect.person import PeopleWorker
from vidtad.pipelines.detect.worker import Job, TemporalWorker, Worker

if TYPE_CHECKING:
    from vidtad.heads.person.options import PeopleOptions


def bundle_for(model: str | Path, weights: str | None = None) -> tuple[Bundle, str | None]:
    """The bundle that `model` means, and a sentence for the user; see `heads.catalogue.resolve_model`.

    With random weights, the name of a person head that is not on this machine means a network of the published size,
    for a dry run without any download. Raises InputError for an unknown name.
    """
    head = str(model)
    if weights is not None and head in HEADS and HEADS[head].tells_who and bundle_path(head) is None:
        from vidtad.heads.person.bundle import random_bundle, random_seed

        seed = random_seed(weights)
        if seed is not None:
            return random_bundle(head, seed), None
    return resolve_model(model)


def worker_for(bundle: Bundle, job: Job, options: "PeopleOptions | None" = None, device: str = "cpu") -> Worker:
    """The worker for this bundle's head. `options` are for heads that say who does what: InputError with others."""
    feeds = head_of(bundle).feeds
    if feeds == "person clips":
        return PeopleWorker(bundle, job, options, device)
    if options is not None:
        raise InputError(
            f"detector {bundle.name} says what happens when, not who does it: leave out options about people"
        )
    return MotionWorker(bundle, job) if feeds == "frames" else TemporalWorker(bundle, job, device)
