"""Results of subcommands are printed as JSON."""

import json

from keras_cascade.cli.commands import show


def test_json_has_null_for_nan_and_infinity(capsys):
    value = {"a": float("nan"), "b": [1.5, float("inf")], "c": (True, "x")}
    show(value, as_json=True)

    def never(constant):
        raise ValueError(f"{constant} is no JSON")

    found = json.loads(capsys.readouterr().out, parse_constant=never)
    assert found == {"a": None, "b": [1.5, None], "c": [True, "x"]}
