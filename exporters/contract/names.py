"""What a user lists, formats and runtimes, turned into the artifacts and runtimes that are meant."""

from __future__ import annotations

import dataclasses

from exporters.contract.formats import BATCH1, FLOAT_IO, FORMATS, Runtime, every_runtime
from exporters.errors import InputError, nearest

AUTO, LOCAL, BROWSER, ALL = "auto", "local", "browser", "all"


@dataclasses.dataclass(frozen=True)
class ArtifactName:
    """A format, a precision and perhaps a variant, written `format-precision[-variant]`: the name of the artifact's folder."""

    format: str
    precision: str
    variant: str = ""

    def __str__(self) -> str:
        return "-".join(each for each in (self.format, self.precision, self.variant) if each)

    @property
    def takes_integers(self) -> bool:
        """Whether it takes pixels, and answers classifications, in uint8."""
        return self.precision in FORMATS[self.format].integer_precisions and self.variant != FLOAT_IO

    @property
    def batch(self) -> int | None:
        """How many pictures it takes at once; None for any number."""
        return 1 if self.variant == BATCH1 else None


def parse_formats(names: tuple[str, ...] | list[str]) -> tuple[ArtifactName, ...]:
    """Turn what a user lists into artifact names, in the order of FORMATS, each once.

    Args:
        names: `tfjs` (all its precisions but those on request), `tfjs-float16` or `tflite-float32-batch1`.

    Raises:
        InputError: an unknown format, precision or variant, or an empty list.
    """
    wanted = {each for name in names for each in _named(name)}
    if not wanted:
        raise InputError(
            "No format is asked for.", f"at least one of {', '.join(FORMATS)}", "set --formats or export.formats"
        )
    return tuple(
        name
        for format_name, row in FORMATS.items()
        for precision in row.precisions
        for variant in ("", *row.variants)
        if (name := ArtifactName(format_name, precision, variant)) in wanted
    )


def _named(name: str) -> list[ArtifactName]:
    """Return what one name in a user's list stands for."""
    format_name, _, rest = name.strip().partition("-")
    precision, _, variant = rest.partition("-")
    mend = "change --formats or export.formats"
    if format_name not in FORMATS:
        raise InputError(f"There is no format '{format_name}'.", nearest(format_name, FORMATS), mend)
    row = FORMATS[format_name]
    if not rest:
        usual = [each for each in row.precisions if each not in row.on_request] or row.precisions
        return [ArtifactName(format_name, each) for each in usual]
    if precision not in row.precisions:
        what = f"The format '{format_name}' has no precision '{precision}'."
        raise InputError(what, f"one of {', '.join(row.precisions)}", mend)
    known = variants_of(format_name, precision)
    if variant not in ("", *known):
        expected = " or ".join(str(ArtifactName(format_name, precision, each)) for each in ("", *known))
        raise InputError(f"There is no variant '{variant}' of {format_name}-{precision}.", expected, mend)
    return [ArtifactName(format_name, precision, variant)]


def usual_formats() -> tuple[str, ...]:
    """Return the formats that are exported where none is named: not those that hold some models only, all on request."""
    return tuple(name for name, row in FORMATS.items() if set(row.on_request) < set(row.precisions))


def variants_of(format_name: str, precision: str) -> tuple[str, ...]:
    """Return the variants in which a precision of a format can be made, in the order of its row; none for unknown ones."""
    variants = FORMATS[format_name].variants if format_name in FORMATS else {}
    return tuple(variant for variant, precisions in variants.items() if precision in precisions)


def runtimes_called(name: str) -> set[Runtime]:
    """Return the runtimes that `local`, `browser`, `all`, `litert` or `litert/reference` stands for; none for another name."""
    groups = {ALL: lambda each: True, LOCAL: lambda each: not each.browser, BROWSER: lambda each: each.browser}
    chosen = groups.get(name, lambda each: name in (each.name, str(each)))
    return {each for each in every_runtime() if chosen(each)}


def check_runtimes(names: tuple[str, ...] | list[str]) -> list[str]:
    """Return the names of runtimes that a user lists, each by itself.

    Raises:
        InputError: an unknown name, or none.
    """
    listed = [each.strip() for name in names for each in name.split(",") if each.strip()]
    known = every_runtime()
    choices = [AUTO, LOCAL, BROWSER, ALL, *dict.fromkeys(each.name for each in known), *map(str, known)]
    for name in listed:
        if name not in choices:
            raise InputError(
                f"There is no runtime '{name}'.", nearest(name, choices), "change --runtimes or parity.runtimes"
            )
    if not listed:
        raise InputError(
            "No runtime is asked for.", f"one of {', '.join(choices)}", "set --runtimes or parity.runtimes"
        )
    return listed
