"""Numbers that torchrun or SLURM leave in the environment of the processes they start.

Must not know what the processes do.
"""

import re
from collections.abc import Mapping

from omni.errors import OmniError


def launcher_number(environment: Mapping[str, str], name: str, least: int = 0) -> int:
    """A variable as a whole number.

    Args:
        environment: holds `name`.
        least: the smallest that makes sense.

    Raises:
        OmniError: it is no number, or a smaller one.
    """
    value = environment[name]
    if not re.fullmatch(r"[0-9]{1,9}", value.strip()) or int(value) < least:
        raise OmniError(
            f"{name} is {value[:40]!r}, no whole number from {least} on",
            "the environment",
            "unset it, or start the processes with torchrun or srun",
        )
    return int(value)
