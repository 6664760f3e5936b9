"""All parts of the suite as one class."""

from __future__ import annotations

from nearest.testing.filtering import Filtering
from nearest.testing.generated import Generated
from nearest.testing.lexical import Lexical
from nearest.testing.lifecycle import Lifecycle
from nearest.testing.records import Records
from nearest.testing.scanning import Scanning
from nearest.testing.searching import Searching
from nearest.testing.sequences import Sequences


class StoreSuite(Records, Scanning, Searching, Lexical, Filtering, Generated, Lifecycle, Sequences):
    """Subclass it in one file, with `module` and the fixture `make`; see `nearest.testing`."""
