"""Which operators of a graph model TF.js can run on its WebAssembly backend, found out from the installed packages."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

_KERNELS = """
const core = require("@tensorflow/tfjs-core");
require("@tensorflow/tfjs-backend-wasm");
console.log(JSON.stringify(core.getKernelsForBackend("wasm").map((each) => each.kernelName)));
"""


def runnable_operators(packages: Path, node: str = "node") -> set[str]:
    """Return the TensorFlow operators for which the converter has code whose kernels the backend has too.

    The converter's executors tell which function of TF.js runs an operator; that function's file tells which kernels it
    runs, or of which other functions it is made; the backend, loaded in Node, tells which kernels it has.

    Args:
        packages: the folder `node_modules/@tensorflow`.
        node: the command.
    """
    command = [node, "--eval", _KERNELS]
    answer = subprocess.run(command, cwd=packages.parents[1], capture_output=True, text=True, check=True)
    present = set(json.loads(answer.stdout))
    functions = _Functions(packages / "tfjs-core" / "dist")
    operators = _operators(packages / "tfjs-converter" / "dist" / "operations" / "executors")
    return {
        operator
        for operator, used in operators.items()
        if all(group & present for name in used for group in functions.kernels(name))
    }


def fusable_activations(packages: Path) -> set[str]:
    """Return the activations that the backend's kernels can have fused into them, in lower case."""
    path = packages / "tfjs-backend-wasm" / "dist" / "kernels" / "types.js"
    return set(re.findall(r'FusableActivation\["(\w+)"\]', path.read_text(encoding="utf-8")))


def _operators(executors: Path) -> dict[str, set[str]]:
    """Return operator -> the functions of TF.js that the converter's code for it calls."""
    found: dict[str, set[str]] = {}
    for path in sorted(executors.glob("*_executor.js")):
        parts, waiting = re.split(r"case '([^']+)':", path.read_text(encoding="utf-8")), []
        for name, body in zip(parts[1::2], parts[2::2], strict=True):
            waiting.append(name)
            body = body.split("default:")[0]
            if body.strip():
                called = set(re.findall(r"\b(?:ops|tfOps)\.([\w.]+)\(", body))
                found |= dict.fromkeys(waiting, called)
                waiting = []
    return found


class _Functions:
    """TF.js's functions: name -> the file that defines it."""

    def __init__(self, core: Path) -> None:
        self._names = dict(re.findall(r"const (\w+) = '(\w+)'", (core / "kernel_names.js").read_text(encoding="utf-8")))
        self._files: dict[str, list[tuple[str, str]]] = {}
        for path in sorted((core / "ops").rglob("*.js")):
            if path.name.endswith("_test.js") or path.name == "ops.js":
                continue
            text = path.read_text(encoding="utf-8").split("//# sourceMappingURL")[0]
            for one, other in re.findall(r"export (?:const (\w+) = |\{ (\w+) \})", text):
                self._files.setdefault(one or other, []).append((path.parent.name, text))

    def kernels(self, name: str, seen: tuple[str, ...] = ()) -> list[set[str]]:
        """Return groups of kernels; the function needs one of each: `abs` runs one for reals or one for complex numbers."""
        folder, _, plain = name.rpartition(".")
        files = self._files.get(plain, [])
        files = [each for each in files if each[0] == (folder or "ops")] or files
        if not files or name in seen:
            return []
        text = files[0][1]
        own = {self._names.get(each, each) for each in re.findall(r"ENGINE\.runKernel\(\s*(\w+)", text)}
        if own:
            return [own]
        imported = re.findall(r"import \{ ([\w, ]+) \} from '\.\.?/[\w/]+'", text)
        names = [each for line in imported for each in line.split(", ") if re.search(rf"\b{each}\(", text)]
        return [group for each in names for group in self.kernels(each, (*seen, name))]
