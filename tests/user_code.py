"""Uses everything public as a user does, for type checkers: it is not run.

pyright checks it (`tox -e lint`), and `test_public_names.py` that no public
name is missing.
"""

from pathlib import Path

import keras
import numpy as np

import keras_cascade as kc
from keras_cascade.cli import main as console


class Doubled(kc.adapters.Adapter):
    def call(self, inputs):
        return 2 * inputs


def networks() -> tuple[keras.Model, keras.Model]:
    for name in kc.zoo.names():
        print(kc.zoo.load(name).output_shape, kc.__version__)
    return kc.zoo.load("glyph_encoder"), kc.zoo.load("digits_expert")


def of_pytorch(module: object) -> keras.Model:
    @kc.register_torch_op("aten.softshrink")
    def softshrink(x: keras.KerasTensor, lambd: float = 0.5) -> object:
        return keras.ops.soft_shrink(x, lambd)

    return kc.from_torch(module, (3, 32, 32), name="encoder")  # type: ignore[arg-type]


def data() -> tuple[dict[str, np.ndarray], np.ndarray]:
    train, test = kc.zoo.digits()
    both: list[kc.zoo.Digits] = [train, test]
    images = np.concatenate([part.images for part in both])[: kc.zoo.TRAIN_SIZE]
    side = kc.zoo.side_features(images)
    low, high = kc.zoo.ASPECT_RANGE
    large = kc.zoo.enlarge(images[..., 0], size=2 * kc.zoo.SIDE)
    print(low < high, large.mean())
    return {"inputs": images, "metadata": side}, train.labels


def look(upstream: keras.Model, downstream: keras.Model) -> None:
    print(kc.stages(upstream))
    ranking = kc.rank_taps(upstream, data(), max_samples=100)
    print(ranking.best(2, max_flops=10**7), ranking.to_dict())
    pairs = kc.stitchability(upstream, kc.zoo.load("glyph_encoder"), data())
    print(pairs.best()["taps"], pairs.to_dict(), pairs.rows[0].r2)
    for tap in kc.list_taps(upstream, "stage*"):
        print(tap.path, tap.shape, tap.parameters)
    report = kc.check_interface(upstream, downstream, head=10)
    print(report.builds, report.to_dict())
    short = kc.truncate(upstream, "stage2_out")
    print(short.output_shape)


def search(upstream: keras.Model, downstream: keras.Model) -> kc.Cascade:
    found = kc.search(
        upstream,
        downstream,
        data(),
        budget_seconds=60,
        loss="sparse_categorical_crossentropy",
        entries=[None, kc.Injection("hidden1")],
        adapters={"few": 32, "many": kc.adapters.DenseAdapter(96)},
        directory=Path("search"),
    )
    print(found.trials[0].score, found.not_tried, found.to_dict())
    return found.best


def build(upstream: keras.Model, downstream: keras.Model) -> kc.Cascade:
    return kc.build_cascade(
        upstream=upstream,
        downstream=downstream,
        taps={"texture": "stage2_out", "shape": "-1"},
        adapters={
            "texture": kc.adapters.PCAAdapter(32),
            "shape": kc.adapters.DenseAdapter(96),
        },
        fusion="concat",
        extra_inputs={"metadata": (2,)},
        trainable={"upstream": kc.LoRA(8), "downstream": True},
        learning_rates={
            "upstream": kc.LayerwiseDecay(1e-4, 0.75),
            "downstream": 1e-4,
        },
        retention={"downstream": kc.L2SP(0.01)},
        optimizer=keras.optimizers.AdamW(1e-3),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )


def inject(upstream: keras.Model, cascade: kc.Cascade) -> kc.Cascade:
    return kc.build_cascade(
        {"edges": upstream, "words": "MobileNetV3Small"},
        cascade,
        inject={
            "edges": "upstream/stage3_out",
            "words": kc.Injection("downstream/hidden1", merge="film"),
        },
        retention={"edges": kc.EWC(1.0, data()[0]), "words": kc.LwF(0.5)},
        head=keras.layers.Dense(10, "softmax"),
        preprocess=None,
        copy=False,
    )


def adapters() -> list[keras.layers.Layer]:
    return [
        Doubled(),
        kc.adapters.LabelMapAdapter({0: 0, 1: 0, 2: 1, 3: 1}),
        kc.adapters.LogitsAdapter(),
        kc.adapters.SpatialAdapter(8),
        kc.adapters.StitchAdapter(penalty=0.1),
        kc.adapters.TokenAdapter("map", channels=16),
    ]


def train(cascade: kc.Cascade) -> None:
    x, y = data()
    cascade.adapt(x, batch_size=64, verbose=False)
    history = cascade.fit(
        x,
        y,
        epochs=3,
        validation_data=(x, y),
        callbacks=[kc.DriftMonitor(x)],
        unfreeze={1: ["upstream/stage4_*"]},
        cache_features=kc.FeatureCache(dtype="float16"),
    )
    print(history.history["loss"][-1], cascade.evaluate(x, y))
    print(cascade.predict(x, batch_size=32, verbose=0))
    cascade.freeze("upstream").unfreeze("downstream").compile("adam", "mse")
    rates = kc.find_learning_rates(cascade, (x, y))
    print(rates, cascade.learning_rates)
    frozen, trainable = kc.split(cascade)
    print(frozen.count_params(), trainable.count_params())


def show(cascade: kc.Cascade, folder: Path) -> None:
    cascade.summary()
    cascade.plot(folder / "cascade.svg")
    print(list(cascade.blocks), cascade.upstreams, cascade.taps)
    for name, adapter in cascade.adapters.items():
        print(name, adapter.name)
    wider = cascade.rebuild(adapters=64)
    print(wider.get_layer("downstream").name, wider.block_of("head"))


def deliver(cascade: kc.Cascade, folder: Path) -> None:
    cascade.save(folder / "cascade.keras")
    cascade.save_weights(folder / "cascade.weights.h5")
    cascade.to_plain().save(folder / "plain.keras")
    cascade.export(folder / "served")
    x, y = data()
    path = folder / "digits.tflite"
    try:
        report: kc.ExportReport = kc.export(
            cascade,
            path,
            quantize="int8",
            calibration_data=x,
            check_data=(x, y),
            labels=[str(digit) for digit in range(10)],
        )
    except kc.ParityError as error:
        print(error.report)
        return
    print(report.holds, report.difference, report.to_dict())
    print(kc.read_card(path)["inputs"])
    console(["inspect", str(folder / "cascade.keras")])


def check(cascade: kc.Cascade) -> list[str]:
    try:
        kc.testing.check_adapter(Doubled(), input_shape=(4, 4, 3))
    except kc.testing.CheckError as error:
        print(error)
    return kc.testing.check_cascade(cascade, data()[0])
