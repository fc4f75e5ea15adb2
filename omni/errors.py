"""The one exception a user ever sees: what went wrong, where, and how to mend it.

Must not know about any stage: it is raised from everywhere and caught by the commands.
"""


class OmniError(Exception):
    """Bad input or a broken environment, told in one line.

    Args:
        what: what is wrong, in words ("tokenizer has 2,048 tokens, the model 32,768").
        where: the file, key, shard or option concerned; empty if there is none.
        mend: what the user can do about it; empty if nothing but reading helps.
        exit_code: exit status of the command that meets it (1 unless stated).
    """

    def __init__(self, what: str, where: str = "", mend: str = "", exit_code: int = 1) -> None:
        self.what = what
        self.where = where
        self.mend = mend
        self.exit_code = exit_code
        super().__init__(str(self))

    def __str__(self) -> str:
        """One line: `what (where): mend`; line breaks inside the parts are folded."""
        line = self.what
        if self.where:
            line += f" ({self.where})"
        if self.mend:
            line += f": {self.mend}"
        return " ".join(line.split())

    def __reduce__(self) -> tuple[type["OmniError"], tuple[str, str, str, int]]:
        """Worker processes hand it to the parent whole."""
        return (OmniError, (self.what, self.where, self.mend, self.exit_code))
