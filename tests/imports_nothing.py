"""A user's own module, whose library is not installed here."""

import no_such_library  # noqa: F401
