"""A result that is to be made."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..config import RunConfig


@dataclass(frozen=True)
class Case:
    """A result that is to be made.

    Attributes
    ----------
    config : of what is measured.
    make : called with the configuration; where the result is on `files`, with their folder and the configuration.
    files : that are not part of the project, in that folder.
    needs : the run whose weights it reads.
    reads : another result that it reads.
    module : whose code it depends on: that of `make`, unless given.
    """

    config: RunConfig
    make: Callable[..., dict]
    files: tuple[str, ...] = ()
    needs: str = ""
    reads: str = ""
    module: str = ""

    def __post_init__(self) -> None:
        if not self.module:
            make = self.make.func if isinstance(self.make, partial) else self.make
            object.__setattr__(self, "module", make.__module__.removeprefix("cryoetgan_core."))
