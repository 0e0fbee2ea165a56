"""Analyses networks and features before anything is trained."""

from keras_cascade.analysis.interface import check_interface as check_interface
from keras_cascade.analysis.report import Finding as Finding
from keras_cascade.analysis.report import InterfaceReport as InterfaceReport
