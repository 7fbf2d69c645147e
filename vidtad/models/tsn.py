"""TSN with a 2D ResNet: frames are classified one by one and averaged (Wang et al., ECCV 2016, section 3.1).

The network, names and checkpoints are those of mmaction2: bottleneck ResNet with the stride in the 3x3 convolution.
"""

import re
from collections.abc import Mapping

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from vidtad.models.loading import load_exactly

FEATURES = 2048
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
END_POINTS = ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4")


class TsnResNet(nn.Module):
    """ResNet over snippets (N, in_channels, H, W) float32: 3 channels RGB, or stacked flow x1 y1 x2 y2 ..."""

    def __init__(
        self, blocks: tuple[int, ...] = DEPTHS[50], in_channels: int = 3, num_classes: int = 400, bn_eps: float = 1e-5
    ):
        super().__init__()
        self.in_channels = in_channels
        self.backbone = ResNet(Bottleneck, list(blocks), norm_layer=lambda width: nn.BatchNorm2d(width, eps=bn_eps))
        del self.backbone.fc
        if in_channels != 3:
            self.backbone.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.fc_cls = nn.Linear(FEATURES, num_classes)

    def run(self, snippets: Tensor) -> dict[str, Tensor]:
        """snippets (N, in_channels, H, W) -> every end point's map by name; "conv1" is after its ReLU."""
        net, maps = self.backbone, {}
        snippets = maps["conv1"] = net.relu(net.bn1(net.conv1(snippets)))
        for name in END_POINTS[1:]:
            snippets = maps[name] = net.get_submodule(name)(snippets)
        return maps

    def snippet_features(self, snippets: Tensor) -> Tensor:
        """snippets (N, in_channels, H, W) -> (N, 2048), the global average of the last map."""
        return self.run(snippets)["layer4"].mean(dim=(2, 3))

    def features(self, clips: Tensor) -> Tensor:
        """clips (B, C, T, H, W) -> (B, 2048): the mean over the snippets of a clip.

        A snippet is one frame (C = in_channels) or `in_channels` / C consecutive ones (5 flow fields of C = 2).
        """
        batch, channels, time = clips.shape[:3]
        snippets = clips.transpose(1, 2).reshape(-1, self.in_channels, *clips.shape[3:])
        rows = self.snippet_features(snippets)
        return rows.view(batch, time * channels // self.in_channels, FEATURES).mean(dim=1)

    def classify(self, features: Tensor) -> Tensor:
        """features (N, 2048) -> class scores before softmax (N, num_classes)."""
        return self.fc_cls(features)


def from_mmaction2(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the `state_dict` of an mmaction2 TSN file (0.x and 1.x alike) to the names used here."""
    renamed = {}
    for key, tensor in state_dict.items():
        key = re.sub(r"\.downsample\.conv\.", ".downsample.0.", key)
        key = re.sub(r"\.downsample\.bn\.", ".downsample.1.", key)
        key = re.sub(r"\.conv(\d)\.conv\.", r".conv\1.", key)
        key = re.sub(r"\.conv(\d)\.bn\.", r".bn\1.", key)
        renamed[key.removeprefix("cls_head.")] = tensor
    return renamed


def load(state_dict: Mapping[str, Tensor], bn_eps: float = 1e-5) -> TsnResNet:
    """TSN with mmaction2's weights; depth, input channels and classes are read from them.

    Raises InputError when a tensor is missing, unused or of another shape.
    """
    renamed = from_mmaction2(state_dict)
    third = {key.split(".")[2] for key in renamed if key.startswith("backbone.layer3.")}
    blocks = next((counts for counts in DEPTHS.values() if counts[2] == len(third)), DEPTHS[50])
    first, last = renamed.get("backbone.conv1.weight"), renamed.get("fc_cls.weight")
    in_channels = 3 if first is None else first.shape[1]
    num_classes = 400 if last is None else last.shape[0]
    network = TsnResNet(blocks, in_channels, num_classes, bn_eps)
    load_exactly(network, renamed)
    return network
