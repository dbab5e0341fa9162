"""How an artifact is used from Python, JavaScript, Kotlin and Swift: code for its README, written from its card."""

from __future__ import annotations

from exporters.contract import ArtifactName, Card
from exporters.usage.javascript import JAVASCRIPT
from exporters.usage.kotlin import KOTLIN
from exporters.usage.python import PYTHON
from exporters.usage.swift import SWIFT

__all__ = ["usage"]

_ELSEWHERE = "TF.js runs in JavaScript alone. For {} take the TFLite or the ONNX artifact of the same run."
_FIXED_BATCH = (
    "LiteRT.js takes models of one picture at a time: export `{0}-batch1` (`--formats {0}-batch1`), whose README has the code "
    "for it. `cutpoint demo` shows this one too, and makes such a copy of it itself."
)


def usage(name: ArtifactName, card: Card) -> str:
    """Return the chapter of an artifact's README that says how programs use it, in Markdown.

    Args:
        name: format, precision and variant.
        card: of the artifact itself, with the dtypes of its file.

    Returns:
        A heading and code in each language that the format can be run in; a sentence on those that it cannot.
    """
    languages = {"Python": PYTHON, "JavaScript": JAVASCRIPT, "Kotlin": KOTLIN, "Swift": SWIFT}
    told = {language: each.code(name, card) for language, each in languages.items()}
    fixed = any(each.wants_another_batch(name, card) for each in languages.values())
    parts = [
        "## In programs\n",
        "The resizing below gives the pixels that the model was trained on; what browsers and phones bring along does not.\n"
        "Cutpoint's tests run the Python and the JavaScript code as it stands, and the Kotlin code with stand-ins for the\n"
        "phone's classes and the runtime; the Swift code in the same way, but only where there is a Swift compiler.\n",
    ]
    for language, code in told.items():
        if code:
            parts.append(f"### {language}\n\n```{language.lower()}\n{code.strip()}\n```\n")
    missing = [language for language, code in told.items() if not code]
    if missing and fixed:
        parts.append(_FIXED_BATCH.format(name) + "\n")
    elif missing:
        parts.append(_ELSEWHERE.format(f"{', '.join(missing[:-1])} and {missing[-1]}") + "\n")
    return "\n".join(parts)
