"""The map that answers to the mouse: who is where, and which title an anchor is."""

from html import escape
from typing import Any

import numpy as np

from coterie.lab.collaboration.analysis import Analysis, LatentMap
from coterie.lab.collaboration.figures import interactions


def interactive_map(analysis: Analysis) -> str:
    """The t-SNE map of every setting as one HTML element with its script in it; the first setting
    is shown.

    Works offline and without WebGL: the script of plotly is in the page, about 5 MB, and points are
    drawn as SVG. The ``meta`` of a trace is the place of its setting, by which the page chooses
    what to show.
    """
    from plotly import graph_objects as go  # noqa: PLC0415

    figure = go.Figure()
    titles = anchor_titles(analysis)
    counts = interactions(analysis)
    for place, one in enumerate(analysis.tsne):
        for trace in (
            _users(go, one, counts),
            *([] if one.anchors is None else [_anchors(go, one, titles)]),
        ):
            figure.add_trace(trace.update(meta=place, visible=place == 0))
    figure.update_layout(
        template="simple_white",
        font={"size": 14, "family": "system-ui, sans-serif"},
        height=620,
        margin={"l": 5, "r": 5, "t": 66, "b": 5},
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        hoverlabel={"bgcolor": "white", "bordercolor": "black", "font": {"color": "black"}},
    )
    for axis in (figure.update_xaxes, figure.update_yaxes):
        axis(visible=False)
    # Nobody's map is to be sent to plotly's cloud by a wrong click.
    config = {
        "responsive": True,
        "displaylogo": False,
        "showSendToCloud": False,
        "plotlyServerURL": "",
    }
    config["modeBarButtonsToRemove"] = ["select2d", "lasso2d"]
    element: str = figure.to_html(
        full_html=False, include_plotlyjs=True, config=config, div_id="map"
    )
    return element


def anchor_titles(analysis: Analysis) -> list[str]:
    """Of the items whose anchors are drawn: titles, or ids where there are none."""
    ids = analysis.dataset.items.ids_of(analysis.anchor_items)
    titles = analysis.dataset.titles
    return [
        str(one) if titles is None else titles[item] or str(one)
        for item, one in zip(analysis.anchor_items, ids, strict=True)
    ]


def _users(go: Any, one: LatentMap, counts: np.ndarray) -> Any:
    ticks = [tick for tick in (1, 10, 100, 1000) if counts.min() <= tick <= counts.max()]
    return go.Scatter(
        x=one.users[:, 0].round(2),
        y=one.users[:, 1].round(2),
        mode="markers",
        name="users",
        customdata=counts,
        hovertemplate="%{customdata} interactions<extra></extra>",
        marker={
            "size": 5,
            "color": np.log10(counts).round(3),
            "colorscale": "Cividis",
            "colorbar": {
                "title": {"text": "interactions", "side": "top"},
                "orientation": "h",
                "y": 0,
                "yanchor": "top",
                "len": 0.6,
                "thickness": 12,
                "tickvals": np.log10(ticks),
                "ticktext": ticks,
            },
        },
    )


def _anchors(go: Any, one: LatentMap, titles: list[str]) -> Any:
    assert one.anchors is not None
    return go.Scatter(
        x=one.anchors[:, 0].round(2),
        y=one.anchors[:, 1].round(2),
        mode="markers",
        name="item anchors",
        text=[escape(title) for title in titles],  # plotly reads marks of its own in text
        hovertemplate="%{text}<extra></extra>",
        marker={"size": 8, "symbol": "cross-thin", "line": {"width": 1.5, "color": "black"}},
    )
