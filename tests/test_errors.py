"""Errors: three answers, an exit code each, and the nearest name."""

from __future__ import annotations

import pytest

from exporters.errors import CutpointError, InputError, NotVerifiedError, ParityError, nearest


@pytest.mark.parametrize(
    ("kind", "exit_code"), [(CutpointError, 70), (InputError, 2), (ParityError, 1), (NotVerifiedError, 3)]
)
def test_every_kind_has_its_exit_code(kind: type[CutpointError], exit_code: int) -> None:
    fault = kind("It broke.", "whole", "mend it")
    assert isinstance(fault, CutpointError)
    assert fault.to_json() == {
        "error": {"what": "It broke.", "expected": "whole", "mend": "mend it"},
        "exit_code": exit_code,
    }


def test_the_text_leaves_out_what_is_not_known() -> None:
    assert str(InputError("It broke.", "whole", "mend it")) == "It broke.\nExpected: whole\nTo mend it: mend it"
    assert str(InputError("It broke.")) == "It broke."


def test_nearest_names_what_is_near_and_else_everything() -> None:
    assert nearest("tflit", ["tfjs", "tflite", "onnx"]).startswith("did you mean 'tflite'")
    assert nearest("zzz", ["tfjs", "onnx"]) == "one of tfjs, onnx"
    assert nearest("zzz", [f"layer_{index}" for index in range(23)]).endswith("layer_19 and 3 more")
    assert nearest("zzz", []) == "one of "
