"""Keeps pretrained blocks from forgetting while they train."""

from keras_cascade.training.retention.ewc import EWC as EWC
from keras_cascade.training.retention.l2sp import L2SP as L2SP
from keras_cascade.training.retention.lwf import LwF as LwF
from keras_cascade.training.retention.method import Retention as Retention
