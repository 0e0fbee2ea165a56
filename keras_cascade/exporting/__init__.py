"""Exports cascades to files for other runtimes, and checks the files."""

from keras_cascade.exporting.card import read_card as read_card
from keras_cascade.exporting.exporter import export as export
from keras_cascade.exporting.report import ExportReport as ExportReport
from keras_cascade.exporting.report import ParityError as ParityError
