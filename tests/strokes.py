"""Figures drawn on the page's canvas as a hand draws them: with a mouse, a finger or a pen, in real pointer events."""

from __future__ import annotations

import math
from collections.abc import Callable

from playwright.sync_api import CDPSession, Page

Point = tuple[float, float]
STEPS_PER_SIDE = 12
RADIUS = 0.34


def _ring(angles: list[float], radii: list[float]) -> list[Point]:
    return [(0.5 + r * math.cos(a), 0.5 + r * math.sin(a)) for a, r in zip(angles, radii, strict=True)]


def _along(corners: list[Point]) -> list[Point]:
    """Points along the closed line through the corners."""
    points = []
    for (x, y), (to_x, to_y) in zip(corners, [*corners[1:], corners[0]], strict=True):
        steps = [step / STEPS_PER_SIDE for step in range(STEPS_PER_SIDE)]
        points += [(x + (to_x - x) * at, y + (to_y - y) * at) for at in steps]
    return [*points, corners[0]]


# Strokes in shares of the canvas, one line each.
FIGURES: dict[str, list[Point]] = {
    "circle": _ring([math.tau * step / 48 for step in range(49)], [RADIUS] * 49),
    "square": _along([(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8)]),
    "star": _along(
        _ring(
            [math.tau * point / 10 - math.pi / 2 for point in range(10)],
            [0.38 if i % 2 == 0 else 0.16 for i in range(10)],
        )
    ),
}


def placed(page: Page, points: list[Point]) -> list[Point]:
    """The points on the canvas, in px of the window."""
    canvas = page.get_by_test_id("canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]


def with_mouse(page: Page, points: list[Point]) -> None:
    """Draw one line with the left button."""
    (start, *rest) = placed(page, points)
    page.mouse.move(*start)
    page.mouse.down()
    for point in rest:
        page.mouse.move(*point)
    page.mouse.up()


def with_finger(page: Page, points: list[Point]) -> None:
    """Draw one line with a finger; the page's context needs `has_touch`."""
    session = page.context.new_cdp_session(page)
    (start, *rest) = placed(page, points)
    _touch(session, "touchStart", start)
    for point in rest:
        _touch(session, "touchMove", point)
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def _touch(session: CDPSession, kind: str, point: Point) -> None:
    session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": point[0], "y": point[1]}]})


def with_pen(page: Page, points: list[Point]) -> None:
    """Draw one line with a pen."""
    session = page.context.new_cdp_session(page)
    (start, *rest) = placed(page, points)
    pen = {"pointerType": "pen", "button": "left", "clickCount": 1}
    for kind, (x, y), buttons in (
        ("mousePressed", start, 1),
        *(("mouseMoved", point, 1) for point in rest),
        ("mouseReleased", rest[-1], 0),
    ):
        session.send("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, "buttons": buttons, **pen})


HANDS: dict[str, Callable[[Page, list[Point]], None]] = {"mouse": with_mouse, "touch": with_finger, "pen": with_pen}
