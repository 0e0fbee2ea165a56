"""Searches for the taps, adapters and entries that train best."""

from keras_cascade.searching.result import SearchResult as SearchResult
from keras_cascade.searching.result import Trial as Trial
from keras_cascade.searching.search import search as search
