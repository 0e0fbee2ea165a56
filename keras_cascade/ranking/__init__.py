"""Ranks taps by how well they serve a task, before anything is trained."""

from keras_cascade.ranking.rank import rank_taps as rank_taps
from keras_cascade.ranking.ranking import RankedTap as RankedTap
from keras_cascade.ranking.ranking import TapRanking as TapRanking
