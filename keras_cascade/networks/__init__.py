"""Networks as the user names them: models, names, presets, files."""
