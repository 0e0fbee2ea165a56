"""Exports cascades to files for other runtimes, and checks the files."""

from typing import TYPE_CHECKING

from keras_cascade._package.public import face

if TYPE_CHECKING:  # At run time, so that the console reads options quickly:
    from keras_cascade.exporting.card import read_card as read_card
    from keras_cascade.exporting.exporter import export as export
    from keras_cascade.exporting.report import ExportReport as ExportReport
    from keras_cascade.exporting.report import ParityError as ParityError

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "ExportReport": "report",
        "ParityError": "report",
        "export": "exporter",
        "read_card": "card",
    },
)
