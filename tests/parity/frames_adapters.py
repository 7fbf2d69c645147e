"""Adapters of everything before the network: which frames, their size and scale, and optical flow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidtad import extractors, flow
from vidtad.extractors import sampling
from vidtad.extractors.base import ClipConvention, ClipExtractor
from vidtad.extractors.preprocess import target_size
from vidtad.flow import tvl1

Manifest = dict[str, Any]
Arrays = Mapping[str, np.ndarray]


def network_input(frame: np.ndarray, convention: ClipConvention) -> np.ndarray:
    """(3, crop, crop) float32, through the extractor's own preparation and normalisation."""
    extractor = ClipExtractor("parity", convention, torch.nn.Identity())
    return extractor.normalise(extractor.prepare(frame)[None, None])[0, :, 0].numpy()


def frame_preprocess(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    frame = io["frame"]
    conventions = {name: extractors.PRESETS[name].convention for name in ("i3d/video_features", "tsn", "r2plus1d/tsp")}
    i3d, tsn, tsp = conventions.values()
    return {
        "vf_i3d_resized_shape": np.array(target_size(*frame.shape[:2], i3d.resize, i3d.interpolation)),
        "vf_i3d_input": network_input(frame, i3d)[:, ::7, ::7],
        "mm_resized_shape": np.array(target_size(*frame.shape[:2], tsn.resize, tsn.interpolation)),
        "mm_tsn_input": network_input(frame, tsn)[:, ::7, ::7],
        "tsp_input": network_input(frame, tsp)[:, ::4, ::4],
    }


def frames_read(rule: str, frames: int) -> np.ndarray:
    """The indices stored under names such as "mmaction_test_5x1x25" for a video of `frames` frames."""
    numbers = rule.split("_")
    if rule.startswith("mmaction_test_"):
        length, interval, clips = (int(number) for number in numbers[-1].split("x"))
        indices = sampling.spread_clips(frames, length, interval, clips)
        return indices[:, 0] if length == 1 else indices
    if rule.startswith("mmaction_untrimmed_"):
        length, interval = int(numbers[-2]), int(numbers[-1])
        indices = sampling.dense_clips(frames, length, interval)
        return indices[:, 0] if length == 1 else indices
    if rule.startswith("tsn_pytorch_test_"):
        return sampling.segment_starts(frames, int(numbers[-1].removeprefix("len")), int(numbers[-2])) + 1
    if rule.startswith("cmcs_"):
        return sampling.window_starts(frames, int(numbers[1]), int(numbers[2]))
    shown = sampling.resampled(frames, float(numbers[-1].removeprefix("fps")), 15)
    return shown[sampling.window_starts(len(shown), 16, 16)]


def snippet_sampling(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    features = io["features"]
    video = dict(part.strip().split(" = ") for part in manifest["outputs"]["bsn_pool_100"].split(";")[1].split(","))
    outputs = {
        "bsn_resize_100": sampling.resize_rows(features),
        "mmaction_pool_100": sampling.pool_rows_mmaction(features),
        "bsn_pool_100": sampling.pool_rows_bsn(
            features, frames=int(video["duration_frame"]), duration_s=float(video["duration_second"])
        ),
    }
    for frames in manifest["config"]["N"]:
        names = [name for name in io if name.startswith(f"{frames}/")]
        outputs.update({name: frames_read(name.split("/")[1], frames) for name in names})
    return outputs


def flow_quantise(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    pixels, bound = io["flow"], manifest["config"]["bound"]
    levels = flow.quantise(pixels, bound)
    floating = flow.levels_video_features(pixels, bound)
    i3d, tsn = (extractors.PRESETS[name].convention for name in ("i3d/flow", "tsn/flow"))
    return {
        "denseflow_u8": levels,
        "mmaction_u8": flow.quantise(pixels, bound, truncate=True),
        "video_features_levels": floating,
        "video_features_scaled": as_input(floating, i3d),
        "i3d_from_denseflow": as_input(levels, i3d),
        "tsn_from_denseflow": as_input(levels, tsn),
    }


def as_input(levels: np.ndarray, convention: ClipConvention) -> np.ndarray:
    """A plane of flow levels under the extractor's own normalisation."""
    extractor = ClipExtractor("parity", convention, torch.nn.Identity())
    planes = np.repeat(levels[None, None, ..., None], 2, axis=-1)
    return extractor.normalise(planes)[0, 0, 0].numpy()


def tvl1_flow(manifest: Manifest, io: Arrays, folder: Path) -> dict[str, np.ndarray]:
    common, outputs = manifest["config"]["common"], {}
    for pair in sorted({name.split("/")[0] for name in io}):
        first, second, true = (io[f"{pair}/{name}"] for name in ("frame0", "frame1", "true_flow"))
        for variant, given in manifest["config"]["variants"].items():
            settings = flow.TvL1(
                tau=common["tau"],
                lambda_=common["lambda"],
                theta=common["theta"],
                scale_step=common["scaleStep"],
                scales=given["nscales"],
                **{key: given[key] for key in ("warps", "epsilon", "inner", "outer", "median")},
            )
            computed = flow.tvl1_torch(first[None], second[None], settings)[0]
            if tvl1.EXACT_REMAP:
                assert np.array_equal(flow.tvl1_cpu(first[None], second[None], settings)[0], computed)
            outputs[f"{pair}/{variant}"] = computed
            if settings.epsilon:
                errors = [np.linalg.norm(found - true, axis=2).mean() for found in (computed, io[f"{pair}/{variant}"])]
                assert abs(errors[0] - errors[1]) <= 0.015, f"{pair}/{variant}: end-point errors {errors}"
    return outputs


ADAPTERS = {
    "frame_preprocess": frame_preprocess,
    "snippet_sampling": snippet_sampling,
    "flow_quantise": flow_quantise,
    "tvl1_flow": tvl1_flow,
}
