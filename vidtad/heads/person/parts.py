"""What makes one person head differ from the others: its network, and the backbones it goes with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True)
class PersonParts:
    """Network and configuration of a head that reads person clips, and how it is fitted to a backbone."""

    network: type[nn.Module]
    """Built from a configuration; `forward` takes a backbone's maps and boxes, see `vidtad.models.people`."""
    config: type
    """The frozen dataclass of its configuration."""
    default: Any
    """The published configuration."""
    channels: str
    """Field of the configuration that holds the channels of the backbone's maps."""
    backbone: str
    """Backbone it is trained on where none is named."""
    published: str
    """Backbone of the published size, for dry runs."""
    configs: Mapping[str, Any] = field(default_factory=dict)
    """Published configurations that belong to a single backbone, by the backbone's name; else `default`."""
    fills_bank: str | None = None
    """Head whose trained bundle may fill this one's feature bank; None for a head without a bank."""
    adopts: Callable[[Any, Any], Any] | None = None
    """(own configuration, that of the head which fills the bank) -> configuration whose maps agree."""
