"""Families of backbones, with shortcuts around each block: the whole way to every format; see `families`."""

from __future__ import annotations

from pathlib import Path

import families
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("name", families.RESIDUAL)
def test_the_whole_way_to_every_format(name: str, tmp_path: Path) -> None:
    families.check_in_a_process_of_its_own(name, tmp_path)
