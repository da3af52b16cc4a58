"""Histograms as SVG by matplotlib, for a page with a strict policy: no style of their own, only the page's classes."""

from __future__ import annotations

import io
import re
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from clipsieve.core.text import printable
from clipsieve.report.histograms import Histogram
from clipsieve.report.words import number, plural, threshold_text

SIZE = (5.2, 2.1)
"""In inches of 72 points, so that letters of 10 points are read on a telephone, where a plot is as wide as that."""

SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "clipsieve", "text.parse_math": False, "font.size": 10}
SERIES = ("kept", "own", "others")
CLASSES = {*SERIES, "mark", "mark-text", "grid", "axis"}
KEPT_ATTRIBUTES = ("d", "x", "y", "transform", "viewBox")


def drawn(of: Histogram) -> str:
    """The histogram as one SVG element, or nothing where there is nothing to draw. Equal input gives equal text."""
    if not len(of.edges):
        return ""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=SIZE, dpi=72)
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0.125, 0.15, 0.85, 0.68))
        base = np.zeros(len(of.kept))
        for name in SERIES:
            heights: npt.NDArray[np.float64] = base + getattr(of, name)
            if getattr(of, name).any():
                axes.stairs(heights, of.edges, baseline=base, fill=True, gid=name, clip_on=False)
            base = heights
        if of.logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(numticks=6))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 3)))
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 3)))
        axes.set_xlim(of.edges[0], of.edges[-1])
        axes.set_ylim(0, max(float(base.max()), 1) * 1.04)
        axes.set_axisbelow(True)
        axes.tick_params(which="both", length=0, pad=4)
        for line in axes.get_ygridlines():
            line.set_gid("grid")
            line.set_clip_on(False)
            line.set_visible(True)
        for side in ("left", "right", "top"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_gid("axis")
        for place, (at, x) in enumerate(of.marks):
            axes.axvline(x, ymax=1.03 + 0.11 * (place % 2), gid="mark", clip_on=False)
            right = axes.transAxes.inverted().transform(axes.transData.transform((x, 0)))[0] > 0.7
            top, side = 1.05 + 0.11 * (place % 2), "right" if right else "left"
            told = f" {threshold_text(at)} "
            axes.text(x, top, told, ha=side, gid="mark-text", transform=axes.get_xaxis_transform())
        file = io.BytesIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _bare(file.getvalue(), described(of))


def described(of: Histogram) -> str:
    """The histogram in words, for who cannot see it."""
    sums = {name: int(getattr(of, name).sum()) for name in SERIES}
    told = f"kept {sums['kept']:,}, dropped by its own rules {sums['own']:,}, gone for other reasons {sums['others']:,}"
    ends = f"from {number(float(of.edges[0]))} to {number(float(of.edges[-1]))}"
    marks = f"; thresholds: {', '.join(threshold_text(mark.at) for mark in of.marks)}" if of.marks else ""
    return f"Histogram of {printable(of.name)}, {plural(sum(sums.values()), of.unit)} {ends}: {told}{marks}"


def _bare(svg: bytes, label: str) -> str:
    """The drawing with classes in place of styles: what the page's own style sheet does not say, nobody does."""
    root = ElementTree.fromstring(svg)
    box = root.get("viewBox", "")
    whole = ElementTree.Element("svg", {"viewBox": box, "role": "img", "aria-label": label, "class": "plot"})
    for group in root.iter(f"{_SVG}g"):
        css = group.get("id", "")
        if css not in CLASSES and not css.startswith("text_"):
            continue
        target = ElementTree.SubElement(whole, "g", {"class": css if css in CLASSES else "tick"})
        for shape in group:
            kind = shape.tag.removeprefix(_SVG)
            if kind not in ("path", "text"):
                continue
            bare = ElementTree.SubElement(target, kind)
            for name in KEPT_ATTRIBUTES:
                if name in shape.attrib:
                    bare.set(name, _NUMBER.sub(_short, " ".join(shape.attrib[name].split())))
            if anchor := re.search(r"text-anchor: (\w+)", shape.get("style", "")):
                bare.set("text-anchor", anchor.group(1))
            bare.text = (shape.text or "").strip() or None
    return ElementTree.tostring(whole, encoding="unicode", short_empty_elements=False)


_SVG = "{http://www.w3.org/2000/svg}"
_NUMBER = re.compile(r"-?\d+\.\d+")


def _short(found: re.Match[str]) -> str:
    return f"{float(found[0]):.1f}"
