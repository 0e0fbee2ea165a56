"""Scores taps, and pairs of networks, before anything is trained."""

from keras_cascade.ranking.rank import rank_taps as rank_taps
from keras_cascade.ranking.ranking import RankedTap as RankedTap
from keras_cascade.ranking.ranking import TapRanking as TapRanking
from keras_cascade.ranking.stitch_table import Stitchability as Stitchability
from keras_cascade.ranking.stitch_table import StitchedPair as StitchedPair
from keras_cascade.ranking.stitching import stitchability as stitchability
