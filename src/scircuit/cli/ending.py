"""How a command ends that cannot go on: one sentence and an exit code, no traceback."""

import errno
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from scircuit.errors import ScircuitError

_UNWRITABLE = frozenset({
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOSPC, errno.EDQUOT,
})  # fmt: skip


class Commands(TyperGroup):
    """The commands; Ctrl-C says that nothing is lost."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was called."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.stderr.write("\nscircuit: stopped; call it again to go on.\n")
            raise typer.Exit(130) from None


def end(error: ScircuitError | OSError) -> NoReturn:
    """Exit with code 2 and a sentence; an error of the system that is not about writing is raised again."""
    if isinstance(error, OSError):
        if error.errno not in _UNWRITABLE or error.filename is None:
            raise error
        place = error.filename2 or error.filename
        error = ScircuitError(f"{place} cannot be written ({error.strerror}); name another place, or make room there.")
    sys.stderr.write(f"scircuit: {error}\n")
    sys.exit(2)
