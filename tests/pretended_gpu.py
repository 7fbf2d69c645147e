"""A GPU that is none: tensors "on cuda" whose numbers lie in the processor's memory, where they are computed too.

    python tests/pretended_gpu.py extract clip.mp4 --device cuda      vidtad, with such a GPU
    python tests/pretended_gpu.py benchmarks/gpu.py --tiny             a script, with such a GPU

What mixes devices fails as it would on a GPU, training included; the branches taken are those of a GPU. Its kernels,
its memory and its speed are not there to be seen. PyTorch's tensors that wrap others (`__torch_dispatch__`) lie on its
spare backend, which takes a guard written in Python from torch 2.10 on, and say that they are on "cuda:0".
"""

import contextlib
import runpy
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

NEEDED = ("_setup_privateuseone_for_python_backend", "_DummyBackendModule")
POSSIBLE = all(hasattr(backend_registration, name) for name in NEEDED)
"""Whether this torch takes a backend written in Python."""
SHOWN, KEPT = "cuda:0", "pretended"
aten = torch.ops.aten
MOVING = (aten._to_copy.default, aten.copy_.default)
STORING = (aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default)
LOWER = "conv1d conv2d conv3d linear matmul mm bmm addmm baddbmm einsum scaled_dot_product_attention"
FULL = (
    "softmax.int log_softmax.int layer_norm group_norm binary_cross_entropy_with_logits cumsum sum sum.dim_IntList exp "
    "log prod pow.Tensor_Scalar smooth_l1_loss l1_loss nll_loss cosine_similarity mse_loss"
)
"""What autocast computes in the shorter format, and in float32: of CUDA's lists, what occurs here."""


class OnGpu(Tensor):
    """A tensor that says it is on the GPU, and the one on the processor that has its numbers."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnGpu":
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=f"{KEPT}:0",
        )
        made.held = held
        return made

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"OnGpu({self.held})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """`func` on the processor. Raises RuntimeError for tensors of both devices where a GPU would."""
    flat, _ = tree_flatten((args, kwargs))
    wrapped = [value for value in flat if isinstance(value, OnGpu)]
    places = "device" in str(func._schema)
    if (wrapped or places) and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        with OnBoth():
            made = func.decompose(*args, **kwargs)
        if made is not NotImplemented:
            return made
    plain = [value for value in flat if isinstance(value, Tensor) and not isinstance(value, OnGpu)]
    if wrapped and any(value.ndim for value in plain) and not _may_mix(func, args):
        shapes = [f"{type(value).__name__}{list(value.shape)}" for value in flat if isinstance(value, Tensor)]
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} was given {shapes}")
    device = kwargs.get("device")
    on_gpu = bool(wrapped) if device is None else torch.device(device).type != "cpu"
    if func is aten.copy_.default:
        on_gpu = isinstance(args[0], OnGpu)
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu"), **({"pin_memory": False} if "pin_memory" in kwargs else {})}
    args, kwargs = tree_map(lambda value: value.held if isinstance(value, OnGpu) else value, (args, kwargs))
    owners = {id(value.held): value for value in wrapped}

    def back(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in owners:
            return owners[id(value)]
        return OnGpu(value) if on_gpu else value

    return tree_map(back, func(*args, **kwargs))


def _may_mix(func: Any, args: Any) -> bool:
    if func in STORING:  # indices may be on the processor, values of one number too
        inside, values = (isinstance(value, OnGpu) for value in (args[0], args[2]))
        return inside and (values or args[2].ndim == 0)
    return func in MOVING or (func is aten.index.Tensor and isinstance(args[0], OnGpu))


class OnBoth(TorchDispatchMode):
    """Operators that make tensors make them where they are told to."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class Named(TorchFunctionMode):
    """What calls itself cuda is kept on the spare backend, and the other way round."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        kwargs = {name: _kept(value) for name, value in (kwargs or {}).items()}
        first = args[0] if args else None
        if func == Tensor.device.__get__:
            device = func(*args)
            return torch.device(SHOWN) if device.type == KEPT else device
        if func == Tensor.is_cuda.__get__:
            return isinstance(first, OnGpu)
        if func is Tensor.pin_memory:
            return first
        if func is Tensor.tolist and isinstance(first, OnGpu):
            return first.held.tolist()
        if func is Tensor.new_tensor and isinstance(first, OnGpu):
            return torch.tensor(*args[1:], **{"dtype": first.dtype, **kwargs}).to(KEPT)
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == torch.device(KEPT, 0):
            return func(*args, **{**kwargs, "device": None}).to(KEPT)
        return func(*map(_kept, args), **kwargs)


def _kept(value: Any) -> Any:
    named = isinstance(value, str | torch.device) and str(value) in ("cuda", SHOWN)
    return torch.device(KEPT, 0) if named else value


def pretend() -> None:
    """From here on, and in threads that start later, there is one GPU. Before vidtad is imported; for good."""

    class Backend(backend_registration._DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16, torch.float16]

    torch.inference_mode = torch.no_grad  # whose tensors cannot be wrapped
    backend_registration._setup_privateuseone_for_python_backend(KEPT, backend_module=Backend())
    torch.__future__.set_swap_module_params_on_conversion(True)
    _autocast()
    plain, run = torch.autocast, threading.Thread.run
    torch.autocast = lambda device, *more, **named: plain(KEPT if device == "cuda" else device, *more, **named)
    said = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "is_bf16_supported": True,
        "get_device_name": "pretended",
        "memory_allocated": 0,
        "max_memory_allocated": 0,
        "get_rng_state_all": [],
    }
    quiet = ["_lazy_init", "set_device", "empty_cache", "synchronize", "set_rng_state_all", "reset_peak_memory_stats"]
    for name, value in {**said, **dict.fromkeys(quiet)}.items():
        setattr(torch.cuda, name, lambda *more, value=value, **named: value)
    torch.cuda.Stream, torch.cuda.stream = lambda device: None, contextlib.nullcontext  # work is done at once

    def entered(self: threading.Thread) -> None:
        with Named(), OnBoth():
            run(self)

    threading.Thread.run = entered
    Named().__enter__()
    OnBoth().__enter__()


def _autocast() -> None:
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
    others, library = (torch.library.Library(name, "IMPL", "AutocastPrivateUse1") for name in ("_", "aten"))
    others.fallback(torch.library.fallthrough_kernel)
    LIBRARIES.extend((others, library))

    def casting(operator: Any, dtype: Callable[[], torch.dtype]) -> Callable[..., Any]:
        def cast(value: Any) -> Any:
            wanted = isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64
            return value.to(dtype()) if wanted else value

        def impl(*args: Any, **kwargs: Any) -> Any:
            with torch._C._ExcludeDispatchKeyGuard(key):
                args, kwargs = tree_map(cast, (args, kwargs))
                return operator(*args, **kwargs)

        return impl

    formats = {LOWER: lambda: torch.get_autocast_dtype(KEPT), FULL: lambda: torch.float32}
    for names, dtype in formats.items():
        for name in names.split():
            packet, _, overload = name.partition(".")
            library.impl(name, casting(getattr(getattr(aten, packet), overload or "default"), dtype))


LIBRARIES: list[torch.library.Library] = []
"""Registrations last as long as these objects."""


def main() -> None:
    """Run vidtad, or the script that is named first."""
    pretend()
    if sys.argv[1].endswith(".py"):
        script = Path(sys.argv[1])
        sys.argv[:] = sys.argv[1:]
        sys.path[0] = str(script.parent)
        runpy.run_path(str(script), run_name="__main__")
        return
    from vidtad.cli import main as vidtad

    vidtad()


if __name__ == "__main__":
    main()
