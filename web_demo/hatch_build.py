"""Builds exporters/javascript/ (predict.js, TF.js and its wasm) for a wheel or an sdist, where it is not there yet."""

import shutil
import subprocess
import sys
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class JavascriptBuildHook(BuildHookInterface):
    """Named in pyproject.toml. An editable installation is left alone: there `make setup` builds."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Run the Node build unless its result is there; say what is missing where it cannot be run."""
        built = Path(self.root, "exporters", "javascript")
        runner = built / "runner.mjs"
        if version == "editable" or (runner.exists() and (built / "parity" / "parity.html").exists()):
            return
        npm = shutil.which("npm")
        if npm is None:
            sys.exit(
                "exporters/javascript is not built, and npm is missing: install Node.js 20 or later with npm "
                "(on Debian: apt-get install nodejs npm), or install a wheel, which has it built."
            )
        for command in (["ci", "--no-audit", "--no-fund"], ["run", "build"]):
            subprocess.run([npm, *command], cwd=Path(self.root, "web_demo"), check=True)
        if not runner.exists():
            sys.exit(f"`npm run build` in web_demo did not write {runner}.")
