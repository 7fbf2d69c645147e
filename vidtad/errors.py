"""The two ways a command can fail; the command line alone turns them into exit codes.

A message is one sentence that names the thing (path, option, class), what is wrong with it, and the way out.
"""

from collections.abc import Iterable

from vidtad.secrecy import masked


class VidtadError(Exception):
    """Base of every error whose message is meant for the user; passwords in addresses are masked in it."""

    def __str__(self) -> str:
        return masked(super().__str__())


class InputError(VidtadError):
    """What was given cannot be used: a missing or broken file, a value out of range (exit code 2)."""


class RunError(VidtadError):
    """The input was fine but the work failed: a full disk, an interrupted download (exit code 1)."""


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line of at most 200 characters; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> str:
    """The sentence for a mistyped `name` of a `kind` ("extractor"): the near ones of `known`, else all of them.

    `where`: where all of them are listed, for tables too long for a sentence.
    """
    import difflib

    names = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    if near:
        return f"no {kind} is called {name!r}; did you mean {' or '.join(near)}?"
    listed = where or f"there is {', '.join(sorted(names)) or 'none'}"
    return f"no {kind} is called {name!r}; {listed}"


def out_of_memory(error: BaseException) -> bool:
    """Whether Python or PyTorch says that memory did not suffice (each kind of device says it in its own way)."""
    words = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: can't allocate")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch.OutOfMemoryError
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
