"""Takes screenshots of everything that is shown, in a real JupyterLab page.

It runs a notebook with every table and picture, opens it in JupyterLab in
headless Chromium with the light and the dark theme, and checks in the page
that no table is wider than its cell and that no widget is left:

    pip install -e ".[torch,test]" jupyterlab playwright
    KERAS_BACKEND=torch python docs/screenshots.py build/screenshots

Chromium is the one that `playwright install chromium` brings, or another by
`--chromium /usr/bin/chromium`.
"""

import argparse
import json
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat.sign import NotebookNotary
from playwright.sync_api import Page, sync_playwright

CELLS = [
    """import keras
import keras_cascade as kc

keras.utils.set_random_seed(0)
encoder, expert = kc.zoo.load("glyph_encoder"), kc.zoo.load("digits_expert")
train, test = kc.zoo.digits()
x = {"inputs": train.images[:200], "metadata": train.side[:200]}
y = train.labels[:200]
arguments = {
    "taps": {"texture": "stage2_out", "shape": "-1"},
    "adapters": {
        "texture": kc.adapters.PCAAdapter(32),
        "shape": kc.adapters.DenseAdapter(96),
    },
    "extra_inputs": {"metadata": (2,)},
}
train""",
    'kc.list_taps(encoder, "stage[12]*")',
    'print(kc.list_taps(encoder, "stage[12]*"))',
    "report = kc.check_interface(encoder, expert, **arguments, data=x)\nreport",
    "print(report)",
    """cascade = kc.build_cascade(
    encoder,
    expert,
    **arguments,
    trainable={"upstream/stage4_*": True},
    learning_rates={"upstream": 1e-5, "downstream": 1e-4},
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
)
cascade.summary()""",
    "cascade.adapt(x)",
    "cascade.summary(print_fn=print, line_length=100)",
    """found = kc.find_learning_rates(cascade, (x, y), steps=20)
found""",
    "found.plot()",
    """monitor = kc.DriftMonitor({name: some[:64] for name, some in x.items()})
history = cascade.fit(
    x, y, validation_split=0.2, epochs=2, callbacks=[monitor], verbose=2
)
monitor""",
    "monitor.plot()",
    """cache = kc.FeatureCache()
cascade.fit(x, y, epochs=2, cache_features=cache, verbose=2)
cache""",
    'cascade.export("cascade.keras", check_data=x)',
    'keras.models.load_model("cascade.keras").get_layer("upstream").summary()',
]
WIDTH = 1280
# Seconds that the notebook may take.
PATIENCE = 600

# The cells whose output is wider than its place, or has a widget.
FIND_FAULTS = """() => [...document.querySelectorAll('.jp-OutputArea-output')]
  .flatMap((output, number) => {
    const faults = [], room = output.getBoundingClientRect().right + 1;
    if (output.scrollWidth > output.clientWidth + 1)
      faults.push(`output ${number} is ${output.scrollWidth} px wide, its ` +
                  `cell ${output.clientWidth}`);
    for (const inner of output.querySelectorAll('.scroll, svg, img'))
      if (inner.getBoundingClientRect().right > room)
        faults.push(`output ${number}: ${inner.tagName} leaves its cell`);
    for (const table of output.querySelectorAll('table'))
      if (table.scrollWidth > table.parentElement.clientWidth + 1)
        faults.push(`output ${number}: a table scrolls sideways`);
    if (output.textContent.includes('Output()'))
      faults.push(`output ${number} is a stray Output()`);
    return faults;
  })"""


def write_notebook(folder: Path) -> None:
    """Runs the notebook that shows everything, and writes it."""
    cells = map(nbformat.v4.new_code_cell, CELLS)
    notebook = nbformat.v4.new_notebook(cells=list(cells))
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    client = NotebookClient(
        notebook,
        timeout=PATIENCE,
        startup_timeout=PATIENCE,
        resources={"metadata": {"path": folder}},
    )
    client.execute()
    # JupyterLab shows the HTML of notebooks that are trusted.
    NotebookNotary().sign(notebook)
    nbformat.write(notebook, folder / "shown.ipynb")


def write_theme(folder: Path, theme: str) -> None:
    """Sets the theme of JupyterLab, and leaves out its announcements."""
    plugins = folder / "settings" / "@jupyterlab"
    settings = {
        "apputils-extension/themes": {"theme": f"JupyterLab {theme}"},
        "apputils-extension/notification": {"fetchNews": "false"},
    }
    for name, values in settings.items():
        path = plugins / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


@contextmanager
def jupyterlab(folder: Path, port: int):
    """Runs JupyterLab in a folder, and yields its address."""
    options = {
        "ServerApp.port": port,
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,
        "IdentityProvider.token": "",
        "ServerApp.root_dir": folder,
        "LabApp.user_settings_dir": folder / "settings",
        "LabApp.workspaces_dir": folder / "workspaces",
    }
    command = [sys.executable, "-m", "jupyterlab"]
    command += [f"--{name}={value}" for name, value in options.items()]
    log = (folder / "jupyterlab.log").open("w")
    with log, subprocess.Popen(command, stderr=log, stdout=log) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/api")
            yield address
        finally:
            process.terminate()


def wait_for(address: str, seconds: float = 120) -> None:
    """Waits until a server answers."""
    until = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(address, timeout=5)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
        else:
            return


def open_notebook(page: Page, address: str) -> None:
    """Opens the notebook, and waits until all its outputs are drawn."""
    page.goto(f"{address}/lab/tree/shown.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=PATIENCE * 1000)
    # Cells that are out of sight are not drawn.
    page.set_viewport_size({"width": WIDTH, "height": 16_000})
    page.wait_for_function(
        "count => document.querySelectorAll('.jp-InputPrompt').length >= count",
        arg=len(CELLS),
        timeout=PATIENCE * 1000,
    )
    page.wait_for_timeout(5000)


def take(address: str, path: Path, chromium: str | None) -> list[str]:
    """Takes a screenshot, and returns the faults of the page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"]
        )
        size = {"width": WIDTH, "height": 900}
        page = browser.new_page(viewport=size)
        open_notebook(page, address)
        faults = page.evaluate(FIND_FAULTS)
        for error in page.query_selector_all("[data-mime-type*='error']"):
            faults.append(error.inner_text()[-500:])
        bottom = page.evaluate(
            """() => Math.max(...[...document.querySelectorAll('.jp-Cell')]
            .map(x => x.getBoundingClientRect().bottom))"""
        )
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": bottom + 20}
        page.screenshot(path=path, clip=clip)
        browser.close()
    return faults


def main() -> int:
    """Takes the screenshots; returns 1 if something does not fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="the folder of the pictures")
    parser.add_argument("--chromium", help="the browser's program")
    parser.add_argument("--port", type=int, default=8898)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    found = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_notebook(folder)
        for number, theme in enumerate(("Light", "Dark")):
            write_theme(folder, theme)
            path = arguments.output / f"notebook_{theme.lower()}.png"
            with jupyterlab(folder, arguments.port + number) as address:
                faults = take(address, path, arguments.chromium)
            found += [f"{theme}: {fault}" for fault in faults]
            state = "has faults" if faults else "looks right"
            sys.stdout.write(f"{path} {state}\n")
    sys.stdout.writelines(f"{fault}\n" for fault in found)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
