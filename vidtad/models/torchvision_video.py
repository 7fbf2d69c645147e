"""torchvision's video classifiers with the layer before the classifier as clip feature, by torchvision's own names."""

from collections.abc import Mapping

from torch import Tensor, nn
from torchvision.models import video
from torchvision.models.video.s3d import S3D

from vidtad.errors import InputError
from vidtad.models.loading import load_exactly

# Features before the classifier, and the attribute that holds it.
NETWORKS: dict[str, tuple[int, str]] = {
    "r3d_18": (512, "fc"),
    "mc3_18": (512, "fc"),
    "r2plus1d_18": (512, "fc"),
    "s3d": (1024, "classifier"),
    "mvit_v1_b": (768, "head"),
    "mvit_v2_s": (768, "head"),
    "swin3d_t": (768, "head"),
    "swin3d_s": (768, "head"),
    "swin3d_b": (1024, "head"),
}


class TorchvisionVideo(nn.Module):
    """One of `NETWORKS` for clips (B, 3, T, H, W) float32, normalised as its torchvision weights say.

    Raises InputError for an unknown name.
    """

    def __init__(self, name: str, num_classes: int = 400):
        super().__init__()
        self.width, head = _known(name)
        self.network: nn.Module = getattr(video, name)(weights=None, num_classes=num_classes)
        self.classifier = getattr(self.network, head)
        setattr(self.network, head, nn.Identity())

    def features(self, clips: Tensor) -> Tensor:
        """clips (B, 3, T, H, W) -> (B, width), the input of the classifier."""
        return self.network(clips)

    def classify(self, features: Tensor) -> Tensor:
        """features (B, width) -> class scores before softmax (B, num_classes)."""
        if isinstance(self.network, S3D):  # its classifier is a 1x1x1 convolution
            return self.classifier(features[:, :, None, None, None]).flatten(1)
        return self.classifier(features)


def _known(name: str) -> tuple[int, str]:
    if name not in NETWORKS:
        raise InputError(f"torchvision has no video network {name!r} here; there are {', '.join(NETWORKS)}")
    return NETWORKS[name]


def from_torchvision(name: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of torchvision's file for the network `name` to those used here."""
    head = f"{_known(name)[1]}."
    own = ("network.", "classifier.") if head != "classifier." else ("network.",)
    renamed = {}
    for key, tensor in state_dict.items():
        if key.startswith(head):
            key = f"classifier.{key.removeprefix(head)}"
        elif not key.startswith(own):
            key = f"network.{key}"
        renamed[key] = tensor
    return renamed


def load(name: str, state_dict: Mapping[str, Tensor]) -> TorchvisionVideo:
    """The network `name` with torchvision's weights; the number of classes is read from them.

    Raises InputError for an unknown name, or when a tensor is missing, unused or of another shape.
    """
    renamed = from_torchvision(name, state_dict)
    classes = [t.shape[0] for key, t in renamed.items() if key.startswith("classifier.") and t.ndim == 1]
    network = TorchvisionVideo(name, classes[-1] if classes else 400)
    load_exactly(network, renamed)
    return network
