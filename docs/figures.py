"""Draws the figures of the site: `python docs/figures.py`, into docs/figures.

torsion.svg   what a neighbor's torsion does while another neighbor turns past it, or leaves through the cutoff
tile.svg      the triplets around one atom as a dense tile
"""

from pathlib import Path

import matplotlib
import torch

from spherenet_fast import build_graph, edge_vectors, ops
from spherenet_fast.nn.blocks import torsions
from spherenet_fast.ops import reference

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  after the choice of a backend without a screen

FOLDER = Path(__file__).parent / "figures"
CUTOFF = 5.0
COLORS = {"paper": "#d08a2e", "smooth": "#0b62a4", "smooth_even": "#57a05a"}
CENTER, END, Q, N, OTHER = range(5)  # the edge CENTER->END, and three neighbors of CENTER around it


def main() -> None:
    matplotlib.rcParams |= {"svg.hashsalt": "spherenet_fast", "svg.fonttype": "none", "font.size": 9}
    FOLDER.mkdir(exist_ok=True)
    for name, figure in (("torsion", torsion()), ("tile", tile())):
        figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)


def points(azimuths: torch.Tensor, distances: torch.Tensor, torsion: str) -> torch.Tensor:
    """sin(theta) e^(i phi) of neighbor Q about the edge while N is at these azimuths (radian) and distances (Ang).

    Returns [len(azimuths), 2], real and imaginary part. Q is at azimuth 0, OTHER at 100 degrees, all 70 degrees off the
    edge; only edges of CENTER are in the graph.
    """
    found = []
    for azimuth, distance in zip(azimuths, distances, strict=True):
        turn = torch.stack([torch.zeros(()).double(), azimuth, torch.tensor(100.0).double().deg2rad()])
        far = torch.stack([torch.tensor(1.5).double(), distance, torch.tensor(1.5).double()])
        theta = torch.tensor(70.0).double().deg2rad()
        around = torch.stack([theta.sin() * turn.cos(), theta.sin() * turn.sin(), theta.cos().expand(3)], 1)
        pos = torch.cat([torch.tensor([[0.0, 0, 0], [0, 0, 1.4]]).double(), far[:, None] * around])
        into = [k for k in (Q, N, OTHER) if k != N or distance < CUTOFF]
        graph = build_graph(_edges(into), 5)
        found.append(_point(pos, graph, torsion))
    return torch.stack(found)


def _edges(into: list[int]) -> torch.Tensor:
    """CENTER's edges, sorted by receiver: those from `into` and END, and the one to END."""
    senders = sorted([END, *into])
    return torch.tensor([[*senders, CENTER], [CENTER] * len(senders) + [END]])


def _point(pos: torch.Tensor, graph, torsion: str) -> torch.Tensor:
    vec = edge_vectors(pos, graph)
    distance = vec.norm(dim=1)
    direction = vec / distance[:, None]
    senders = graph.edge_index[0, : int(graph.in_ptr[CENTER + 1])].tolist()
    place = senders.index(Q)  # CENTER has one edge out, so the number of a pair is that of its edge in
    found = torsions(torsion, vec, distance, direction, CUTOFF, graph, ops)
    if torsion == "paper":
        _, *found = reference.triplet_geometry(direction, found, graph)
    re, im = found
    return torch.stack([re[place], im[place]])


def torsion() -> plt.Figure:
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained", width_ratios=(0.8, 1, 1))
    _sketch(axes[0])
    degrees = torch.linspace(-80, 180, 261).double() + 1e-3
    lengths = torch.linspace(3.0, 5.4, 161).double() + 1e-6
    ways = (
        (degrees, degrees.deg2rad(), torch.full_like(degrees, 1.5), "azimuth of n, degrees", "n turns past q (at 0)"),
        (lengths, torch.full_like(lengths, 40.0).deg2rad(), lengths, "distance of n, Å", "n leaves through the cutoff"),
    )
    for panel, (x, azimuth, distance, label, title) in zip(axes[1:], ways, strict=True):
        for name, color in COLORS.items():
            y = points(azimuth, distance, name)[:, 0]
            y[1:][(y[1:] - y[:-1]).abs() > 0.2] = torch.nan  # a gap where it jumps
            panel.plot(x, y, color=color, lw=1.6, label=name.replace("_", " "), zorder=3 if name == "paper" else 2)
        panel.set(xlabel=label, title=title, ylabel="sin θ cos φ of q")
        panel.grid(lw=0.3)
    axes[1].legend(frameon=False, fontsize=8)
    return figure


def _sketch(axes) -> None:
    """The neighbors as seen along the edge."""
    for name, degrees, color in (("q", 0, "black"), ("n, moving", 40, "#b03030"), ("another", 100, "black")):
        angle = torch.tensor(float(degrees)).deg2rad()
        x, y = angle.cos().item(), angle.sin().item()
        axes.plot([0, x], [0, y], color=color, lw=1.4)
        axes.plot([x], [y], "o", color=color, ms=9)
        axes.annotate(name, (1.16 * x, 1.16 * y), ha="left" if x > 0.5 else "center", va="center", color=color)
    axes.plot([0], [0], "o", color="#0b62a4", ms=12)
    axes.annotate("j, and i above it", (0, -0.18), ha="center", va="center", color="#0b62a4")
    axes.set(xlim=(-0.9, 1.9), ylim=(-0.6, 1.4), title="seen along the edge j→i")
    axes.set_aspect("equal")
    axes.axis("off")


def tile() -> plt.Figure:
    """Rows are the edges into one atom, columns those out of it."""
    neighbors = "12345"
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for row, k in enumerate(neighbors):
        for column, i in enumerate(neighbors):
            same = row == column
            face = "#e8e8e8" if same else "#cfe1f0"
            axes.add_patch(plt.Rectangle((column, -row - 1), 0.92, 0.92, facecolor=face, edgecolor="none"))
            text = "–" if same else f"{k}→j→{i}"
            axes.annotate(text, (column + 0.46, -row - 0.54), ha="center", va="center", fontsize=8)
        axes.annotate(f"q = {k}→j:  x, Ga, Gt", (-0.15, -row - 0.54), ha="right", va="center", fontsize=8)
        axes.annotate(f"{k}", (row + 0.46, 0.2), ha="center", fontsize=8)
        axes.annotate(f"M[j→{k}]", (row + 0.46, -5.45), ha="center", fontsize=8)
    axes.annotate("e = j→", (-0.15, 0.2), ha="right", fontsize=8)
    axes.annotate("read once\nfor the tile", (-3.3, -2.5), ha="center", va="center", fontsize=8, color="#0b62a4")
    axes.annotate("written once", (5.2, -5.45), ha="left", fontsize=8, color="#0b62a4")
    axes.annotate("– the reverse of e\nis no triplet", (5.2, -2.5), ha="left", va="center", fontsize=8)
    axes.set(xlim=(-4.2, 7.4), ylim=(-5.8, 0.7))
    axes.axis("off")
    return figure


if __name__ == "__main__":
    main()
