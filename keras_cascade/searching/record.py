"""Keeps the trials of a search in a folder, so that it can go on.

Tested by `tests/searching/test_search.py`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from keras_cascade._interrupts.atomic_write import move_into_place, workspace
from keras_cascade.cascade.cascade import Cascade

_FILE, _VERSION = "search.json", 1


@dataclass
class Outcome:
    """The result of a combination so far.

    Attributes:
        rungs: The number of trainings, each longer than the one before.
        epochs: The number of epochs of all of them.
        score: The best score on the validation data.
        seconds: The seconds of building, training and scoring.
    """

    rungs: int = 0
    epochs: int = 0
    score: float = float("nan")
    seconds: float = 0.0


@dataclass
class Record:
    """The outcomes of a search, in a folder.

    Attributes:
        folder: The folder.
        search: Describes the search: a record serves no other.
        seconds: The time that the search took so far.
        outcomes: The outcomes by the labels of the combinations.
    """

    folder: Path
    search: Mapping[str, object]
    seconds: float = 0.0
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, search: Mapping[str, object]) -> "Record":
        """Returns the record in a folder, or a new one.

        Raises:
            ValueError: If the folder has the record of another search.
        """
        path = folder / _FILE
        if not path.is_file():
            return cls(folder, search)
        found = json.loads(path.read_text("utf-8"))
        if found.get("version") != _VERSION or found["search"] != search:
            before = found.get("search", {})
            other = [k for k in search if before.get(k) != search[k]]
            raise ValueError(
                f"directory='{folder}' has the record of another search: "
                f"{', '.join(other) or 'its version'} differs. Pass another "
                "folder, or remove this one."
            )
        outcomes = {k: Outcome(**x) for k, x in found["outcomes"].items()}
        return cls(folder, search, found["seconds"], outcomes)

    def write(self) -> None:
        """Writes the record; one that is killed leaves the earlier one."""
        found = {
            "version": _VERSION,
            "search": self.search,
            "seconds": self.seconds,
            "outcomes": {k: asdict(x) for k, x in self.outcomes.items()},
        }
        path = self.folder / _FILE
        with workspace(path) as folder:
            staged = folder / path.name
            staged.write_text(json.dumps(found, indent=1), "utf-8")
            move_into_place(staged, path)

    def weights(self, number: int) -> Path:
        """Returns the file with the weights of a combination."""
        return self.folder / f"{number}.weights.h5"

    def save(self, number: int, cascade: Cascade) -> None:
        """Saves the weights of a combination."""
        path = self.weights(number)
        with workspace(path) as folder:
            staged = folder / path.name
            cascade.save_weights(staged)
            move_into_place(staged, path)
