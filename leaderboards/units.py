"""Numbers for people: counts, FLOPs, bytes, seconds, intervals. Missing is a dash."""

from __future__ import annotations

from harness.records.sections import Interval

DASH = "-"
_DECIMAL = ("", "k", "M", "G", "T", "P", "E")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def count(value: float | None, unit: str = "") -> str:
    """`1.23 T` with a unit behind it; three significant digits."""
    if value is None:
        return DASH
    if -1000 < value < 1000 and float(value).is_integer():
        return f"{value:.0f} {unit}".rstrip()
    scaled, prefix = _scale(float(value), 1000, _DECIMAL)
    return f"{_digits(scaled)} {prefix}{unit}".rstrip()


def size(value: float | None) -> str:
    """Bytes as `1.5 MiB`."""
    if value is None:
        return DASH
    scaled, prefix = _scale(float(value), 1024, _BINARY)
    return f"{_digits(scaled)} {prefix}"


def seconds(value: float | None) -> str:
    """Seconds, minutes or hours."""
    if value is None:
        return DASH
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (float("inf"), 3600, "h")):
        if value < limit:
            return f"{_digits(value / divisor)} {unit}"
    return DASH


def number(value: float | None, digits: int = 3) -> str:
    """A plain number with `digits` decimals."""
    return DASH if value is None else f"{value:.{digits}f}"


def ratio(value: float | None) -> str:
    """`1.42 x`."""
    return DASH if value is None else f"{_digits(value)} x"


def ends(interval: Interval, digits: int = 3) -> str:
    """`[0.31, 0.55]`, or a dash when the ends are unknown."""
    if interval.low is None or interval.high is None:
        return DASH
    return f"[{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def with_ends(interval: Interval, digits: int = 2) -> str:
    """`0.42 [0.31, 0.55]`; `undefined` where there is no value."""
    if interval.value is None:
        return "undefined"
    tail = ends(interval, digits)
    return number(interval.value, digits) + (f" {tail}" if tail != DASH else "")


def divide(top: float | None, bottom: float | None) -> float | None:
    """A quotient; None where a side is unknown or the divisor is 0."""
    return None if top is None or not bottom else top / bottom


def _scale(value: float, base: int, prefixes: tuple[str, ...]) -> tuple[float, str]:
    limit = base * 0.9995
    for prefix in prefixes[:-1]:
        if -limit < value < limit:
            return value, prefix
        value /= base
    return value, prefixes[-1]


def _digits(value: float) -> str:
    """Three significant digits, whole numbers kept whole, nothing in exponent form below a million."""
    size = abs(value)
    if value == 0 or 100 <= size < 1e6:
        return f"{value:.0f}"
    if size < 1e-3 or size >= 1e6:
        return f"{value:.2e}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3f}"


def budget_label(budget: object) -> str:
    """`steps=200 memory=8589934592`, or `unlimited`."""
    limits = budget if isinstance(budget, dict) else {}
    return " ".join(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
                    for key, value in limits.items() if value is not None) or "unlimited"  # fmt: skip
