"""The two ways a command can fail; the command line alone turns them into exit codes.

A message is one sentence that names the thing (path, option, class), what is wrong with it, and the way out.
"""


class VidtadError(Exception):
    """Base of every error whose message is meant for the user."""


class InputError(VidtadError):
    """What was given cannot be used: a missing or broken file, a value out of range (exit code 2)."""


class RunError(VidtadError):
    """The input was fine but the work failed: a full disk, an interrupted download (exit code 1)."""


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line of at most 200 characters; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def out_of_memory(error: BaseException) -> bool:
    """Whether Python or PyTorch says that memory did not suffice (each kind of device says it in its own way)."""
    words = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: can't allocate")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch.OutOfMemoryError
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
