"""Small charts as inline SVG that follows the page's colours: no scripts, no files, no plotting library."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from cluster.engine.progress import short_number


@dataclass(frozen=True)
class Chart:
    """Curves over steps: `curves` maps a name to its points (x, y); y that is not finite leaves a gap."""

    title: str
    curves: Mapping[str, Sequence[tuple[float, float]]]
    x_label: str = "step"
    y_label: str = ""


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) that lie in [low, high].

    >>> nice_ticks(0, 1), nice_ticks(3, 97)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [20.0, 40.0, 60.0, 80.0])
    """
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def line_chart(chart: Chart, width: int = 520, height: int = 260) -> str:
    """The curves of one chart with axes, light grid lines and a legend; an empty string if there is no point."""
    points = [p for curve in chart.curves.values() for p in curve if math.isfinite(p[1])]
    if not points:
        return ""
    left, right, top, bottom = 52, 14, 12, 40
    (x0, x1), (y0, y1) = _span([p[0] for p in points]), _span([p[1] for p in points], margin=0.06)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - x0) / (x1 - x0) * (width - left - right),
            height - bottom - (y - y0) / (y1 - y0) * (height - top - bottom),
        )

    parts = []
    for y in nice_ticks(y0, y1):
        _, py = place(x0, y)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{py:.1f}" y2="{py:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{py + 4:.1f}" text-anchor="end">{short_number(y)}</text>')
    for x in nice_ticks(x0, x1):
        px, _ = place(x, y0)
        parts.append(f'<text x="{px:.1f}" y="{height - bottom + 16}" text-anchor="middle">{short_number(x)}</text>')
    base = height - bottom
    parts.append(f'<line class="axis" x1="{left}" x2="{width - right}" y1="{base}" y2="{base}"/>')
    parts.append(
        f'<text x="{(left + width - right) / 2}" y="{height - 6}" text-anchor="middle">{escape(chart.x_label)}</text>'
    )
    for i, curve in enumerate(chart.curves.values()):
        parts += [f'<path class="curve c{i % 6}" d="{_path(run, place)}"/>' for run in _runs(thin(curve))]
    label = f"{chart.title}: {', '.join(chart.curves)} by {chart.x_label}"
    svg = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    unit = f" [{escape(chart.y_label)}]" if chart.y_label else ""
    return f"<figure><h3>{escape(chart.title)}{unit}</h3>{legend(list(chart.curves))}{svg}</figure>"


def bar_chart(scores: Mapping[str, Mapping[str, float]], width: int = 860) -> str:
    """Scores in [0,1] by model and class: a bar for the last model, best class first, a tick for each other model."""
    main = list(scores)[-1]
    names = sorted(scores[main], key=lambda name: -scores[main][name])
    left, right, pitch = 150, 50, 22
    height = len(names) * pitch + 26
    scale = width - left - right
    parts = []
    for x in nice_ticks(0, 1):
        px = left + x * scale
        parts.append(f'<line class="grid" x1="{px:.1f}" x2="{px:.1f}" y1="0" y2="{height - 22}"/>')
        parts.append(f'<text x="{px:.1f}" y="{height - 6}" text-anchor="middle">{100 * x:.0f}</text>')
    for i, name in enumerate(names):
        y, value = i * pitch + 4, scores[main][name]
        end = left + value * scale
        parts.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(_short(name))}</text>')
        parts.append(f'<rect class="bar" x="{left}" y="{y}" width="{value * scale:.1f}" height="14" rx="2"/>')
        others = [(j, other[name]) for j, other in enumerate(scores.values()) if name in other][:-1]
        for j, other in others:
            px = left + other * scale
            parts.append(f'<line class="tick c{(j + 1) % 6}" x1="{px:.1f}" x2="{px:.1f}" y1="{y - 2}" y2="{y + 16}"/>')
        far = max([end] + [left + other * scale for _, other in others])
        parts.append(f'<text class="strong" x="{far + 6:.1f}" y="{y + 12}">{100 * value:.1f}</text>')
    parts.append(f'<text x="{left - 8}" y="{height - 6}" text-anchor="end">IoU [%]</text>')
    size = f'class="wide" viewBox="0 0 {width} {height}"'
    svg = f'<svg {size} role="img" aria-label="score by class">{"".join(parts)}</svg>'
    return f"<figure>{legend([main, *list(scores)[:-1]])}{svg}</figure>"


def legend(names: Sequence[str]) -> str:
    """Coloured keys; nothing for a single curve, which its title names."""
    if len(names) < 2:
        return ""
    keys = "".join(f'<span class="k{i % 6}">{escape(name)}</span>' for i, name in enumerate(names))
    return f'<p class="legend">{keys}</p>'


def thin(points: Sequence[tuple[float, float]], limit: int = 400) -> list[tuple[float, float]]:
    """At most about `limit` points: of every run of neighbours the mean, so that a long curve stays small."""
    step = -(-len(points) // limit)
    if step <= 1:
        return list(points)
    groups = [points[i : i + step] for i in range(0, len(points), step)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _span(values: Sequence[float], margin: float = 0.0) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        return low - 0.5, high + 0.5
    return low - margin * (high - low), high + margin * (high - low)


def _runs(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """The stretches between points that are not finite."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _path(points: Sequence[tuple[float, float]], place: Callable[[float, float], tuple[float, float]]) -> str:
    placed = [place(*point) for point in points]
    placed += placed if len(placed) == 1 else []  # a lone point: a line of no length, round ends make it a dot
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)


def _short(name: str) -> str:
    return name if len(name) <= 20 else name[:19] + "…"
