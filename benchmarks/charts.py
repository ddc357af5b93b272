# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Draws what the benchmarks have measured: from the JSON files in a folder the charts of the
documentation.

Ours is blue and all else grey, so that no colour has to be told from another; what a mark is stands
beside it.  The ground is white, in both themes of the documentation.

Run it with C{python benchmarks/charts.py FOLDER [--into FOLDER]}.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

INTO = Path(__file__).resolve().parents[1] / "docs" / "_static" / "performance"

OURS = "#0072B2"
OTHER = "#9A9A9A"
FLOOR = "#4D4D4D"
GOAL = "#D55E00"
INK = "#222222"
FAINT = "#6B6B6B"

STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlepad": 10,
    "xtick.color": FAINT,
    "ytick.color": INK,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # Text as outlines: it looks the same wherever the picture is shown.
    "svg.fonttype": "path",
    # The same numbers give the same file.
    "svg.hashsalt": "twisted_heartbeat",
}

SPOKEN = {
    "twisted_heartbeat": "twisted_heartbeat",
    "ours": "twisted_heartbeat",
    "mixin": "twisted_heartbeat, mixed in",
    "wrapped": "twisted_heartbeat, wrapped",
    "mixin, client": "twisted_heartbeat, mixed in, client",
    "wrapped, client": "twisted_heartbeat, wrapped, client",
    "heartbeat:": "twisted_heartbeat, heartbeat:",
    "keepalive:": "twisted_heartbeat, keepalive:",
    "epoll": "raw epoll loop, Python",
    "C": "raw epoll loop, C",
    "bare": "bare Twisted",
    "silent": "bare Twisted, no pings",
    "direct": "bare Twisted, to the sockets",
    "callLater": "Twisted, callLater each",
    "autobahn": "autobahn, automatic ping",
    "websockets": "websockets, keepalive",
    "uvloop": "asyncio on uvloop",
}
"""What contestants are called in a chart, where that is not their name."""

NOTICERS = {"bare": "bare Twisted", "keepalive": "OS keepalive, 2+3×2 s"}
"""What contestants are called in the chart of L{drawNoticing}."""

NOTICED = 20.0
"""Seconds at which a bar of that chart is cut off."""

Rows = dict[str, dict[str, Any]]


def spoken(name: str) -> str:
    """
    What a contestant is called.
    """
    return SPOKEN.get(name, name)


def isOurs(name: str) -> bool:
    """
    Whether a contestant is this package.
    """
    return spoken(name).startswith("twisted_heartbeat")


def colour(name: str) -> str:
    """
    Of a contestant.
    """
    if isOurs(name):
        return OURS
    return FLOOR if name in ("epoll", "C") else OTHER


def number(value: float) -> str:
    """
    As much of a figure as can be read in a chart.
    """
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 20 else f"{value:.2g}"


def bars(axes: Axes, rows: Rows, title: str, unit: str) -> None:
    """
    One bar for each contestant, from the least, with its quartiles, and its figure beside it.
    """
    names = sorted(rows, key=lambda name: rows[name]["median"])
    most = max(row["high"] for row in rows.values()) or 1.0
    for place, name in enumerate(names):
        row = rows[name]
        axes.barh(place, row["median"], color=colour(name), height=0.68)
        if row["high"] > row["low"]:
            axes.hlines(place, row["low"], row["high"], color=INK, linewidth=1)
        told = number(row["median"])
        if "ratio" in row:
            told += f"   {row['ratio']:.2f} x"
        axes.text(
            max(row["high"], row["median"]) + 0.012 * most,
            place,
            told,
            va="center",
            color=INK if isOurs(name) else FAINT,
            weight="bold" if isOurs(name) else "normal",
        )
    axes.set_yticks(range(len(names)), [spoken(name) for name in names])
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_weight("bold" if isOurs(name) else "normal")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * most)
    axes.set_title(f"{title}, {unit}" if unit else title)
    axes.xaxis.set_visible(False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(left=False)


def panels(count: int, heights: list[float], width: float = 7.6) -> tuple[Figure, list[Axes]]:
    """
    Several charts, one below the other.
    """
    figure, grid = pyplot.subplots(
        count, 1, figsize=(width, sum(heights) + 0.2), height_ratios=heights, squeeze=False
    )
    return figure, list(grid[:, 0])


# Each of them.


def drawHeartbeat(found: dict[str, Any]) -> dict[str, Figure]:
    """
    What a ping costs, in floors, and what a link holds.  Who did not keep the rate, so that its
    figures are not for one ping a second, is marked.
    """
    slow = {
        name: f"{spoken(name)}, at {row['median']:.2f} Hz"
        for comparison in byLinks(found, "pings for each in a second").values()
        for name, row in comparison["rows"].items()
        if not row["met"]
    }
    called = {"TimeoutMixin": "TimeoutMixin + LoopingCall"} | slow
    cost = drawByLinks(byLinks(found, "a ping and its pong"), "ratio", "us", called)
    cost.axes[0].set_title("Processor time of a ping and its pong, beside the floor's", pad=32)
    memory = drawByLinks(byLinks(found, "memory of one"), "median", "bytes", called)
    memory.axes[0].set_title("Memory of a link", pad=32)
    return {"heartbeat": cost, "memory": memory}


def byLinks(found: dict[str, Any], ending: str) -> dict[int, dict[str, Any]]:
    """
    The comparisons whose titles end so, by the number of links, from the most.
    """
    each = {
        int(title.split()[0]): comparison
        for title, comparison in found["comparisons"].items()
        if title.endswith(f": {ending}")
    }
    return dict(sorted(each.items(), reverse=True))


def drawByLinks(
    each: dict[int, dict[str, Any]], of: str, unit: str, called: dict[str, str]
) -> Figure:
    """
    A bar for each contestant and number of links, a line at the goal, and the figures in columns
    beside them, where no line crosses them.

    @param of: what the bars show, C{"ratio"} to the base, or C{"median"}.
    @param called: what contestants are called here, where that is another name.
    """
    first = next(iter(each.values()))
    names = sorted(first["rows"], key=lambda name: extent(first["rows"][name], of)[1])
    figure, [axes] = panels(1, [0.8 + 0.33 * len(names)], width=8.4)
    thickness = 0.76 / len(each)
    edge = 10
    for level, (links, comparison) in enumerate(each.items()):
        edge += 105 if of == "ratio" else 85
        inColumn(axes, edge, -1, f"{links:,} links", FAINT)
        for place, name in enumerate(names):
            row = comparison["rows"][name]
            low, middle, high = extent(row, of)
            at = place - 0.38 + thickness * (level + 0.5)
            axes.barh(at, middle, thickness, color=colour(name), alpha=0.45 if level else 1.0)
            if high > low:
                axes.hlines(at, low, high, color=INK, linewidth=0.8)
            ink = OURS if isOurs(name) else INK
            inColumn(axes, edge, place, f"{row['median']:,.0f} {unit}", ink)
            if of == "ratio":
                inColumn(axes, edge - 50, place, f"{middle:.1f} x", ink)
    base = first["rows"][first["base"]]["median"]
    goals = {
        row["goal"] + (base if row["goalOf"] == "over" else 0.0)
        for row in first["rows"].values()
        if "goal" in row
    }
    for goal in goals:
        axes.axvline(goal, color=GOAL, linewidth=1.2)
        words = f"goal: {goal:g} x" if of == "ratio" else f"goal: {goal:,.0f} {unit}"
        axes.text(goal, -1, words, color=GOAL, ha="center", va="center")
    axes.set_ylim(len(names) - 0.5, -0.6)
    axes.set_xlim(0)
    axes.set_yticks(range(len(names)), [called.get(name, spoken(name)) for name in names])
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(OURS if isOurs(name) else INK)
        label.set_weight("bold" if isOurs(name) else "normal")
    axes.xaxis.set_visible(False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(left=False)
    return figure


def extent(row: dict[str, Any], of: str) -> tuple[float, float, float]:
    """
    From the lower quartile by way of the median to the upper; the base is once itself.
    """
    if of == "median":
        return row["low"], row["median"], row["high"]
    return row.get("ratioLow", 1.0), row.get("ratio", 1.0), row.get("ratioHigh", 1.0)


def inColumn(axes: Axes, edge: float, place: float, words: str, ink: str) -> None:
    """
    Words beside a bar, which end this many points to the right of the chart.
    """
    axes.annotate(
        words,
        (1, place),
        xycoords=axes.get_yaxis_transform(),
        xytext=(edge, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        color=ink,
        annotation_clip=False,
    )


def drawComparisons(found: dict[str, Any]) -> dict[str, Figure]:
    """
    All figures of a benchmark, as bars.
    """
    comparisons = {
        title: comparison
        for title, comparison in found["comparisons"].items()
        if len(comparison["rows"]) > 1
    }
    heights = [0.55 + 0.3 * len(each["rows"]) for each in comparisons.values()]
    if not heights:
        return {}
    figure, axes = panels(len(heights), heights)
    for one, (title, comparison) in zip(axes, comparisons.items(), strict=True):
        bars(one, comparison["rows"], title, comparison["unit"])
    return {found["benchmark"]: figure}


def drawStorm(found: dict[str, Any]) -> dict[str, Figure]:
    """
    The attempts in each second, simulated; and the same of the real one, with its phantoms.
    """
    drawn = {}
    if "simulated" in found["curves"]:
        drawn["storm"] = drawSimulated(found)
    if "real" in found["curves"]:
        drawn["phantoms"] = drawReal(found)
    return drawn


def medianOf(found: dict[str, Any], ending: str) -> dict[str, float]:
    """
    The medians of the one comparison whose title ends so.
    """
    [rows] = [
        each["rows"]
        for title, each in found["comparisons"].items()
        if title.endswith(f": {ending}")
    ]
    return {name: row["median"] for name, row in rows.items()}


def drawSimulated(found: dict[str, Any]) -> Figure:
    """
    One small chart for each policy, all to one scale; what would pass it is cut, and told.
    """
    curves = found["curves"]["simulated"]
    recovery = medianOf(found, "99 % are back after")
    top, down, until = 70.0, 120, 300
    figure, axes = panels(len(curves), [0.92] * len(curves))
    for one, (name, curve) in zip(axes, curves.items(), strict=True):
        shown = [min(top, value) for value in curve["attempts"][:until]]
        one.axvspan(0, down, color="#F0F0F0", linewidth=0)
        one.fill_between(range(len(shown)), shown, step="post", color=colour(name), linewidth=0)
        beside(one, name, 1.13, f"{number(max(curve['attempts']))} %")
        beside(one, name, 1.31, f"{number(recovery[name])} s")
        one.set_title(name, color=OURS if isOurs(name) else INK, pad=3)
        one.set_ylim(0, top)
        one.set_xlim(0, until)
        one.set_yticks([0, 50], ["0", "50 %"])
        one.tick_params(axis="y", colors=FAINT)
        one.set_xticks([0, 60, 120, 180, 240, 300], [])
    axes[-1].set_xticklabels(["broker dies", "60 s", "returns", "180 s", "240 s", "300 s"])
    for place, head in ((1.13, "busiest\nsecond"), (1.31, "99 % back\nafter")):
        axes[0].text(
            place, 1.5, head, transform=axes[0].transAxes, ha="right", va="center", color=FAINT
        )
    figure.supylabel("attempts in each second, of the fleet", color=FAINT, fontsize=10)
    return figure


def beside(axes: Axes, name: str, place: float, words: str) -> None:
    """
    A figure in a column to the right of a small chart.
    """
    axes.text(
        place,
        0.35,
        words,
        transform=axes.transAxes,
        ha="right",
        va="center",
        fontsize=12,
        color=OURS if isOurs(name) else INK,
        weight="bold" if isOurs(name) else "normal",
    )


def drawReal(found: dict[str, Any]) -> Figure:
    """
    How many were left in a connection that was none, and how they tried.
    """
    curves = found["curves"]["real"]
    phantoms = medianOf(found, "phantoms at the end")
    figure, axes = panels(len(curves), [1.15] * len(curves))
    top = 10 * (1 + int(max(max(curve) for curve in curves.values()) / 10))
    for one, (name, curve) in zip(axes, curves.items(), strict=True):
        one.axvspan(0, 3, color="#F0F0F0", linewidth=0)
        one.bar(
            [second + 0.5 for second in range(len(curve))], curve, width=0.92, color=colour(name)
        )
        left = number(phantoms[name])
        one.text(
            0.995,
            0.95,
            f"{left} phantoms left" if phantoms[name] else "no phantom left",
            transform=one.transAxes,
            ha="right",
            va="top",
            fontsize=12,
            color=OURS if isOurs(name) else INK,
            weight="bold",
        )
        peak = max(range(len(curve)), key=curve.__getitem__)
        one.text(peak + 1.15, 0.8 * top, f"{number(curve[peak])} % in one second", va="top")
        one.set_title(name, color=OURS if isOurs(name) else INK, pad=3)
        one.set_ylim(0, top)
        one.set_xlim(0, 30)
        one.set_yticks([0, 50], ["0", "50 %"])
        one.tick_params(axis="y", colors=FAINT)
        one.set_xticks([0, 3, 10, 20, 30], [])
    axes[-1].set_xticklabels(["killed", "back", "10 s", "20 s", "30 s"])
    figure.supylabel("attempts in each second, of the fleet", color=FAINT, fontsize=10)
    return figure


def drawVerdicts(found: dict[str, Any]) -> dict[str, Figure]:
    """
    How many of the dead were found by when.
    """
    figure, [axes] = panels(1, [3.2])
    latest = 0.0
    for name, late in found["curves"].items():
        real = "real" in name
        shares = [100 * (rank + 1) / len(late) for rank in range(len(late))]
        axes.step(
            [late[0], *late],
            [0, *shares],
            where="post",
            color=OURS if real else OTHER,
            linewidth=2.2 if real else 1.6,
        )
        place = int(len(late) * (0.55 if real else 0.93))
        axes.annotate(
            f"{int(name.split()[0]):,} {'real links' if real else 'links in virtual time'}",
            (late[place], shares[place]),
            xytext=(7, -4),
            textcoords="offset points",
            va="top",
            color=OURS if real else FAINT,
            weight="bold" if real else "normal",
        )
        latest = max(latest, late[-1])
    axes.axvline(50, color=GOAL, linewidth=1.2)
    axes.text(50, 101, " bound + 50 ms", color=GOAL, va="bottom", ha="center")
    axes.set_xlim(-2, max(60.0, 1.05 * latest))
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 50, 100], ["0", "50 %", "100 %"])
    axes.tick_params(axis="y", colors=FAINT)
    axes.set_xlabel(f"milliseconds after the bound of {found['bound']:g} s")
    axes.set_title("Dead peers found", pad=20)
    return {"verdicts": figure}


def drawFalseVerdicts(found: dict[str, Any]) -> dict[str, Figure]:
    """
    Mistakes against the time that it takes to find a dead peer: for each trace and detector.
    """
    figure, grid = pyplot.subplots(1, 2, figsize=(7.6, 4.6), sharey=True)
    curves = found["curves"]
    heads = ["mistakes in 10,000 heartbeats", "a dead peer is found after, s"]
    marks = {"twisted_heartbeat": "o", "fixed timeout": "s", "Chen": "^", "phi accrual (8)": "D"}
    names = list(curves)
    for column, (axes, head) in enumerate(zip(grid, heads, strict=True)):
        for place, name in enumerate(names):
            axes.axhline(place, color="#E6E6E6", linewidth=0.8, zorder=0)
            for step, (detector, mark) in enumerate(marks.items()):
                axes.plot(
                    curves[name][detector][column],
                    place + 0.17 * (step - 1.5),
                    mark,
                    color=colour(detector),
                    markersize=7 if isOurs(detector) else 5.5,
                    label=detector,
                    clip_on=False,
                )
        axes.set_title(head, fontsize=10, pad=8)
        axes.set_yticks(range(len(names)), names)
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False)
        axes.set_xlim(0)
        axes.set_ylim(len(names) - 0.5, -0.6)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(
        handles[: len(marks)],
        labels[: len(marks)],
        loc="lower center",
        ncols=len(marks),
        frameon=False,
        handletextpad=0.2,
        bbox_to_anchor=(0.5, -0.06),
    )
    return {"falseverdicts": figure}


def drawNoticing(found: dict[str, Any]) -> dict[str, Figure]:
    """
    The longest that each contestant took to notice each fault.
    """
    faults = found["longest"]
    figure, grid = panels(len(faults), [1.25] * len(faults))
    limit = found["seconds"]
    names = ["ours", "autobahn", "websockets", "keepalive", "bare"]
    spans = {name: NOTICERS.get(name, spoken(name)) for name in names}
    for axes, (fault, rows) in zip(grid, faults.items(), strict=True):
        for place, name in enumerate(names):
            never = rows[name] >= limit
            # On the scale of the longest finite one, so that it can be read.
            axes.barh(place, min(rows[name], NOTICED), color=colour(name), height=0.7)
            told = f"not noticed in {limit:g} s" if never else f"{rows[name]:.1f} s"
            if rows[name] < 0.05:
                told = "at once"
            axes.text(
                min(rows[name], NOTICED) + 0.2,
                place,
                told,
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
                color=INK if isOurs(name) else FAINT,
                weight="bold" if isOurs(name) else "normal",
            )
        axes.set_yticks(range(len(names)), [spans[name] for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, NOTICED + 5)
        axes.axvline(found["bound"], color=GOAL, linewidth=1.2, zorder=0)
        axes.set_title(fault)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(left=False)
    grid[0].text(
        found["bound"], -0.75, f"bound, {found['bound']:g} s", color=GOAL, ha="center", va="bottom"
    )
    return {"noticing": figure}


DRAWN: dict[str, Callable[[dict[str, Any]], dict[str, Figure]]] = {
    "heartbeat": drawHeartbeat,
    "datapath": drawComparisons,
    "storm": drawStorm,
    "verdicts": drawVerdicts,
    "falseverdicts": drawFalseVerdicts,
    "noticing": drawNoticing,
}
"""By benchmark; what the documentation shows of the others is words and tables."""


def draw(found: dict[str, Any], into: Path) -> list[Path]:
    """
    What one benchmark has found.

    @return: where its charts are.
    """
    drawn = []
    with matplotlib.rc_context(STYLE):
        for name, figure in DRAWN[found["benchmark"]](found).items():
            figure.tight_layout()
            drawn.append(into / f"{name}.svg")
            figure.savefig(drawn[-1], bbox_inches="tight", pad_inches=0.15, metadata={"Date": None})
            pyplot.close(figure)
    return drawn


def main() -> None:
    """
    The command.
    """
    parser = argparse.ArgumentParser(description="Draw what the benchmarks have measured.")
    parser.add_argument("folder", type=Path, help="where their JSON files are")
    parser.add_argument("--into", type=Path, default=INTO, help="where to draw")
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    drawn = []
    for path in sorted(options.folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["benchmark"] in DRAWN:
            drawn += draw(found, options.into)
    if not drawn:
        raise SystemExit(f"nothing to draw is in {options.folder}")
    print(*drawn, sep="\n")


if __name__ == "__main__":
    main()
