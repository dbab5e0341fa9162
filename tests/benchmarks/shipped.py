"""As a program, `python shipped.py FOLDER FORMATS`: exports a result folder as `cutpoint export` does, without judging it."""

from __future__ import annotations

import sys
from pathlib import Path

from exporters.contract import parse_formats
from pipeline.run import choose_tensorflow, prepare_keras
from pipeline.stages import StageLog
from pipeline.terminal import Terminal


def main() -> None:
    """Make every artifact asked for."""
    choose_tensorflow()
    prepare_keras("auto")
    from pipeline.shipping import ship

    terminal = Terminal()
    log = StageLog(terminal.say)
    ship(Path(sys.argv[1]), parse_formats(sys.argv[2].split(",")), {}, log, terminal)
    for stage in log.stages:
        terminal.say(f"{stage.name}: {stage.wall_s:.1f} s, {stage.peak_memory_bytes / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
