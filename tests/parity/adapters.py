"""One adapter a kind of golden fixture: (manifest, io, folder) -> {name of a stored output: array}.

`manifest` is the fixture's manifest.json, `io` its arrays (empty where the fixture holds files instead),
`folder` the fixture's folder. An adapter reads everything it needs from these, so that fixtures of the same kind
with other seeds, sizes or configurations pass without a change here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity import (
    actionformer_adapters,
    actionformer_training_adapters,
    backbone_adapters,
    evaluation_adapters,
    frames_adapters,
    person_adapters,
    postprocess_adapters,
    react_adapters,
)

Adapter = Callable[[dict[str, Any], Mapping[str, np.ndarray], Path], dict[str, np.ndarray]]

ADAPTERS: dict[str, Adapter] = {
    **backbone_adapters.ADAPTERS,
    **frames_adapters.ADAPTERS,
    **actionformer_adapters.ADAPTERS,
    **actionformer_training_adapters.ADAPTERS,
    **react_adapters.ADAPTERS,
    **postprocess_adapters.ADAPTERS,
    **evaluation_adapters.ADAPTERS,
    **person_adapters.ADAPTERS,
}
