"""The named extractors: clip networks with the frames, sizes and scale each was trained on.

Windows, strides and rates are those of the published feature sets; where a network has none, the clip its weights were
trained on.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from vidtad.extractors.base import ClipConvention
from vidtad.models import i3d, slowfast, tiny3d
from vidtad.plugins import Table


@dataclass(frozen=True)
class Preset:
    """A named extractor: what it is fed, how its network is built, and which published checkpoints fit it.

    `network` builds it with its usual sizes and no weights; `load` builds it from a state dict in any
    published layout (default: the names of `network` itself). `checkpoints` are the ids of the registry that it
    computes right, the first its own; one that only other presets list is not its. `companion`
    is the extractor of the other stream (flow beside RGB) that shares its windows.
    """

    convention: ClipConvention
    network: Callable[[], nn.Module]
    checkpoints: tuple[str, ...] = ()
    load: Callable[[Mapping[str, Tensor]], nn.Module] | None = None
    companion: str | None = None


def _later(module: str, name: str, *args: Any) -> Callable[..., nn.Module]:
    """The function `name` of a module of vidtad.models, imported at its first call: torchvision takes a second."""
    return lambda *more: getattr(import_module(f"vidtad.models.{module}"), name)(*args, *more)


# 2 * x / 255 - 1; DeepMind resized the short side to 256 and cropped 224.
_I3D = ClipConvention(
    window=16,
    stride=4,
    fps=None,
    resize=256,
    crop=224,
    mean=(127.5, 127.5, 127.5),
    std=(127.5, 127.5, 127.5),
    channels=(("rgb", i3d.FEATURES),),
)
# Optical flow in levels of 0 to 255, its pictures resized before it is computed.
_I3D_FLOW = dataclasses.replace(
    _I3D, mean=(127.5,) * 2, std=(127.5,) * 2, channels=(("flow", i3d.FEATURES),), flow="tvl1"
)
# CMCS, whose THUMOS14 files ActionFormer takes: pictures of 340x256 whatever the video's shape. Of its three crops the
# centre's; which one those files are of is not documented.
_CMCS: dict[str, Any] = {"resize": (256, 340)}
_ACTIVITYNET: dict[str, Any] = {"stride": 16, "fps": Fraction(25)}
# video_features reads one frame more than a stack shows, flow or not, and drops an unfinished last stack. Its flow is
# RAFT; torchvision's weights stand in for those of the authors.
_VIDEO_FEATURES: dict[str, Any] = {"window": 64, "stride": 64, "interpolation": "pillow"}
# mmaction2's TSN: one frame in the middle of every 16, as long as that middle is inside the video.
_TSN = ClipConvention(
    window=16,
    stride=16,
    fps=None,
    resize=256,
    crop=224,
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    channels=(("rgb", 2048),),
    picks=(8,),
    tail=7,
)
# Five flow fields around the middle of every 16, as levels minus 128 over 128.
_TSN_FLOW = dataclasses.replace(
    _TSN, mean=(128.0,) * 2, std=(128.0,) * 2, channels=(("flow", 2048),), picks=(6, 7, 8, 9, 10), flow="tvl1"
)
# BN-Inception wants 0-255 minus a mean; frames are 340x256 whatever their shape. A row for every fifth frame (G-TAD,
# ReAct), which stands for the five up to the next: RGB sees the first, flow the five fields from it on. What the
# published rows of flow were centred on is not documented; TSN's own test rule starts a stack at its first frame.
_BNINCEPTION = dataclasses.replace(
    _TSN,
    window=5,
    stride=5,
    picks=(0,),
    resize=(256, 340),
    mean=(128.0, 117.0, 104.0),
    std=(1.0, 1.0, 1.0),
    channels=(("rgb", 1024),),
    tail=4,
)
_BNINCEPTION_FLOW = dataclasses.replace(
    _BNINCEPTION, picks=None, mean=(128.0,) * 2, std=(1.0,) * 2, channels=(("flow", 1024),), flow="tvl1"
)
# Mean and deviation of torchvision's Kinetics weights, and of TSP.
_KINETICS_MEAN = (0.43216 * 255, 0.394666 * 255, 0.37645 * 255)
_KINETICS_STD = (0.22803 * 255, 0.22145 * 255, 0.216989 * 255)
# TSP: 15 frames a second, aspect ratio not kept.
_TSP = ClipConvention(
    window=16,
    stride=16,
    fps=Fraction(15),
    resize=(128, 171),
    crop=112,
    mean=_KINETICS_MEAN,
    std=_KINETICS_STD,
    channels=(("rgb", 512),),
    interpolation="float",
)
# PySlowFast: pictures in 0-1 minus 0.45 over 0.225. EPIC's features show all 32 frames of a window.
_SLOWFAST = ClipConvention(
    window=32,
    stride=16,
    fps=Fraction(30),
    resize=256,
    crop=256,
    mean=(0.45 * 255,) * 3,
    std=(0.225 * 255,) * 3,
    channels=(("rgb", 2304),),
    interpolation="opencv-floor",
)
# Every second frame of 64, as the Kinetics networks were trained on.
_SLOWFAST_KINETICS = dataclasses.replace(_SLOWFAST, window=64, stride=32, picks=tuple(range(0, 64, 2)))
_SLOWFAST_TAIL = (3,) * 6 + (1,) * 17
"""Temporal kernels of res4 in the R101 networks whose name ends in 50_50."""
# The whole picture squeezed into a square: nobody at its side is cut off.
_TINY3D = ClipConvention(
    window=tiny3d.WINDOW,
    stride=4,
    fps=Fraction(15),
    resize=(tiny3d.SIDE, tiny3d.SIDE),
    crop=tiny3d.SIDE,
    mean=(127.5, 127.5, 127.5),
    std=(63.75, 63.75, 63.75),
    channels=(("rgb", tiny3d.FEATURES),),
)


_I3D_FILES = {stream: (f"i3d-{stream}-kinetics400", f"i3d-{stream}-kinetics400-hassony2") for stream in ("rgb", "flow")}


def _i3d(companion: str, **changes: Any) -> Preset:
    convention = dataclasses.replace(_I3D, **changes)
    return Preset(convention, i3d.InceptionI3d, _I3D_FILES["rgb"], i3d.load, companion)


def _i3d_flow(companion: str, **changes: Any) -> Preset:
    convention = dataclasses.replace(_I3D_FLOW, **changes)
    return Preset(convention, partial(i3d.InceptionI3d, 2), _I3D_FILES["flow"], i3d.load, companion)


def _hassony2(preset: Preset, channels: int) -> Preset:
    """I3D as hassony2's conversion runs it: PyTorch's own eps in batch norm, which moves a feature by about 1 %."""
    return dataclasses.replace(
        preset,
        network=partial(i3d.InceptionI3d, channels, bn_eps=1e-5),
        load=partial(i3d.load, bn_eps=1e-5),
        checkpoints=preset.checkpoints[::-1],
    )


def _tsn(companion: str, **changes: Any) -> Preset:
    convention = dataclasses.replace(_TSN, **changes)
    ids = ("tsn-r50-1x1x8-kinetics400-rgb", "tsn-r50-activitynet-video-rgb")
    return Preset(convention, _later("tsn", "TsnResNet"), ids, _later("tsn", "load"), companion)


def _tsn_flow(companion: str, **changes: Any) -> Preset:
    convention = dataclasses.replace(_TSN_FLOW, **changes)
    ids = ("tsn-r50-320p-1x1x8-kinetics400-flow", "tsn-r50-activitynet-video-flow")
    return Preset(convention, _later("tsn", "TsnResNet", (3, 4, 6, 3), 10), ids, _later("tsn", "load"), companion)


def _tsp(*checkpoints: str, stride: int) -> Preset:
    convention = dataclasses.replace(_TSP, stride=stride)
    return Preset(convention, _later("r2plus1d", "R2Plus1d"), checkpoints, _later("r2plus1d", "load"))


def _torchvision(name: str, window: int, width: int, checkpoints: tuple[str, ...] = (), **changes: Any) -> Preset:
    settings = {"window": window, "interpolation": "torchvision", "channels": (("rgb", width),), **changes}
    return Preset(
        dataclasses.replace(_TSP, **settings),
        _later("torchvision_video", "TorchvisionVideo", name),
        checkpoints or (f"{name.replace('_', '-')}-kinetics400",),
        _later("torchvision_video", "load", name),
    )


def _slowfast(
    *checkpoints: str,
    convention: ClipConvention = _SLOWFAST_KINETICS,
    shape: slowfast.SlowFastShape | None = None,
    options: slowfast.SlowFastOptions | None = None,
    **changes: Any,
) -> Preset:
    """`options` hold what no checkpoint tells; `shape`, that of random weights, is read from a checkpoint."""
    return Preset(
        dataclasses.replace(convention, **changes),
        partial(slowfast.SlowFast, shape, options),
        checkpoints,
        lambda state: slowfast.load(state, options),
    )


def _tail_of_ones(shape: slowfast.SlowFastShape) -> slowfast.SlowFastShape:
    stages = list(shape.kernels)
    stages[2] = (_SLOWFAST_TAIL, _SLOWFAST_TAIL)
    return dataclasses.replace(shape, kernels=tuple(stages))


_LARGE = partial(_torchvision, crop=224, resize=256)
_MVIT = partial(_LARGE, fps=Fraction(15, 2), mean=(0.45 * 255,) * 3, std=(0.225 * 255,) * 3)
_SWIN = partial(_LARGE, mean=(0.485 * 255, 0.456 * 255, 0.406 * 255), std=(0.229 * 255, 0.224 * 255, 0.225 * 255))

_OWN: dict[str, Preset] = {
    "i3d": _i3d("i3d/flow"),
    "i3d/flow": _i3d_flow("i3d"),
    "i3d/thumos14": _i3d("i3d/thumos14-flow", **_CMCS),
    "i3d/thumos14-flow": _i3d_flow("i3d/thumos14", **_CMCS),
    "i3d/activitynet": _i3d("i3d/activitynet-flow", **_ACTIVITYNET),
    "i3d/activitynet-flow": _i3d_flow("i3d/activitynet", **_ACTIVITYNET),
    "i3d/video_features": _hassony2(_i3d("i3d/video_features-flow", paired=True, **_VIDEO_FEATURES), 3),
    "i3d/video_features-flow": _hassony2(
        _i3d_flow("i3d/video_features", flow="raft", levels="video_features", **_VIDEO_FEATURES), 2
    ),
    "tsn": _tsn("tsn/flow"),
    "tsn/flow": _tsn_flow("tsn"),
    "tsn/activitynet": _tsn("tsn/activitynet-flow", crop=256),
    "tsn/activitynet-flow": _tsn_flow("tsn/activitynet", crop=256),
    "tsn/thumos14": Preset(
        _BNINCEPTION,
        _later("bninception", "BNInception"),
        ("tsn-bninception-kinetics-rgb",),
        _later("bninception", "load"),
        "tsn/thumos14-flow",
    ),
    "tsn/thumos14-flow": Preset(
        _BNINCEPTION_FLOW,
        _later("bninception", "BNInception", 10),
        ("tsn-bninception-kinetics-flow",),
        _later("bninception", "load"),
        "tsn/thumos14",
    ),
    "r2plus1d/tsp": _tsp("tsp-r2plus1d-34-activitynet", "tsp-r2plus1d-34-thumos14", stride=16),
    "r2plus1d/tsp-thumos14": _tsp("tsp-r2plus1d-34-thumos14", "tsp-r2plus1d-34-activitynet", stride=1),
    "r3d_18": _torchvision("r3d_18", 16, 512),
    "mc3_18": _torchvision("mc3_18", 16, 512),
    "r2plus1d_18": _torchvision("r2plus1d_18", 16, 512),
    "s3d": _LARGE("s3d", 128, 1024, resize=(256, 256)),
    "mvit_v1_b": _MVIT("mvit_v1_b", 16, 768),
    "mvit_v2_s": _MVIT("mvit_v2_s", 16, 768),
    "swin3d_t": _SWIN("swin3d_t", 32, 768),
    "swin3d_s": _SWIN("swin3d_s", 32, 768),
    "swin3d_b": _SWIN("swin3d_b", 32, 1024, checkpoints=("swin3d-b-1k-kinetics400", "swin3d-b-22k-kinetics400")),
    "slowfast": _slowfast(
        "slowfast-8x8-r50-kinetics400",
        "slowfast-8x8-r50-kinetics400-caffe2",
        "slowfast-8x8-r101-kinetics400",
    ),
    "slowfast/4x16": _slowfast(
        "slowfast-4x16-r50-kinetics400",
        "slowfast-4x16-r50-kinetics400-caffe2",
        shape=slowfast.SlowFastShape.published(fusion_kernel=5),
        options=slowfast.SlowFastOptions(alpha=8),
    ),
    "slowfast/16x8": _slowfast(
        "slowfast-16x8-r101-50-50-kinetics400",
        shape=_tail_of_ones(slowfast.SlowFastShape.published(101, fusion_kernel=5)),
        window=128,
        stride=64,
        picks=tuple(range(0, 128, 2)),
    ),
    # ACAR resizes with Pillow; its R101 network has a mean, a deviation and a choice of slow frames of its own.
    "slowfast/acar-r50": _slowfast("acar-slowfast-r50-kinetics400", interpolation="pillow"),
    "slowfast/acar-r101": _slowfast(
        "acar-slowfast-r101-kinetics700",
        shape=slowfast.SlowFastShape.published(101, 700, fusion_kernel=5, fusion_norm=False),
        options=slowfast.SlowFastOptions(slow_frames="stride"),
        interpolation="pillow",
        mean=(110.63666788, 103.16065604, 96.29023126),
        std=(38.7568578, 37.88248729, 40.02898126),
    ),
    "slowfast/epic": _slowfast("slowfast-epic100", convention=_SLOWFAST),
    "tiny3d": Preset(_TINY3D, tiny3d.Tiny3D),
}
PRESETS: Mapping[str, Preset] = Table("vidtad.extractors", Preset, _OWN)
"""All extractors by name, built in and installed."""
