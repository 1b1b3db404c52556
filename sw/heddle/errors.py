# SPDX-License-Identifier: Apache-2.0
"""Errors that the user can mend, each one clear sentence."""


class UserError(Exception):
    """Bad input: a file, an option or a model that cannot be used.  Exit status 2."""


class RunError(Exception):
    """A run that failed although its input was right.  Exit status 1."""
