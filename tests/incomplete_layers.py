"""Layers whose own configs leave something out, for several tests."""

import keras


class _Base(keras.layers.Layer):
    """A matrix product, in a layer whose subclasses write odd configs."""

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], self.units), name="w")

    def call(self, x):
        return keras.ops.matmul(x, self.w)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)


@keras.saving.register_keras_serializable("incomplete")
class WithoutBase(_Base):
    """Its config has nothing that every layer has."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def get_config(self):
        return {"units": self.units}


@keras.saving.register_keras_serializable("incomplete")
class WithoutFlag(WithoutBase):
    """Its config has a name, and neither flag nor dtype."""

    def get_config(self):
        return {"units": self.units, "name": self.name}


@keras.saving.register_keras_serializable("incomplete")
class Ignoring(WithoutBase):
    """Its config is complete, and `from_config` ignores it."""

    def get_config(self):
        return keras.layers.Layer.get_config(self) | {"units": self.units}

    @classmethod
    def from_config(cls, config):
        return cls(config["units"])


@keras.saving.register_keras_serializable("incomplete")
class Renaming(WithoutBase):
    """Its constructor changes the name that it is given."""

    def __init__(self, units, name="scale", **kwargs):
        super().__init__(units, name=f"my_{name}", **kwargs)

    def get_config(self):
        return keras.layers.Layer.get_config(self) | {"units": self.units}


@keras.saving.register_keras_serializable("incomplete")
class WithoutKeywords(_Base):
    """Its constructor takes nothing that every layer takes."""

    def __init__(self, units):
        super().__init__()
        self.units = units


@keras.saving.register_keras_serializable("incomplete")
class Composite(keras.layers.Layer):
    """Has a layer inside that writes no name, and is made with a dtype."""

    def __init__(self, units, inner=None, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.inner = inner or WithoutBase(units, name="first")
        self.dense = keras.layers.Dense(
            units, name="second", dtype=self.dtype_policy
        )

    def build(self, input_shape):
        if not self.inner.built:
            self.inner.build(input_shape)
        self.dense.build((*input_shape[:-1], self.units))

    def call(self, x):
        return self.dense(self.inner(x))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.inner)
        return {"units": self.units, "inner": inner}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        inner = keras.saving.deserialize_keras_object(config.pop("inner"))
        return cls(inner=inner, **config)


KINDS = (
    WithoutBase,
    WithoutFlag,
    Ignoring,
    Renaming,
    WithoutKeywords,
    Composite,
)


def make_layer(kind, name, dtype="float32"):
    """Makes a layer, under a name and of a dtype whatever its class takes."""
    if kind is WithoutKeywords:
        layer = kind(3)
        layer.name = name
        layer.dtype_policy = keras.DTypePolicy(dtype)
        return layer
    return kind(3, name=name, dtype=dtype)


def describe(network):
    """Returns names, dtypes and flags of all layers, and those of weights."""
    return (
        [(x.name, x.dtype_policy.name) for x in network._flatten_layers()],
        {v.path: (v.dtype, v.trainable) for v in network.variables},
    )
