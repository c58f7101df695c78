"""Errors that are the user's to mend: one clear message with the name, the value and the remedy, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """Something the user asked for cannot be done; the message says what, why and what to do instead."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A hint for an unknown `name`: the nearest valid one first, then the valid names (at most 12 of them)."""
    names = sorted(set(valid))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if not near:
        # 'lr' for 'optim.lr': the last part of a dotted name may be all that the user remembered.
        near = [n for n in names if n.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]][:1]
    hint = f"did you mean '{near[0]}'? " if near else ""
    shown = ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")
    return f"{hint}valid: {shown}" if names else hint.strip()
