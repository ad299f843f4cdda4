"""The map that answers to the mouse: who is where, and which title an anchor is."""

from typing import Any

import numpy as np

from coterie.collaboration.analyze import Analysis, LatentMap
from coterie.collaboration.figures import interactions


def interactive_map(analysis: Analysis) -> str:
    """The t-SNE map of every setting as one HTML element with its script in it, a button a setting.

    Works offline: the script of plotly is in the page, about 5 MB.
    """
    from plotly import graph_objects as go  # noqa: PLC0415

    figure = go.Figure()
    titles = anchor_titles(analysis)
    counts = interactions(analysis)
    shown: list[list[bool]] = []
    for place, one in enumerate(analysis.tsne):
        traces = [_users(go, one, counts), *([] if one.anchors is None else [_anchors(go, one, titles)])]
        for trace in traces:
            trace.visible = place == 0
            figure.add_trace(trace)
            shown.append([place == at for at in range(len(analysis.tsne))])
    buttons = [
        {"label": one.name, "method": "update", "args": [{"visible": [mine[at] for mine in shown]}]} for at, one in enumerate(analysis.tsne)
    ]
    figure.update_layout(
        template="simple_white",
        height=620,
        margin={"l": 10, "r": 10, "t": 60, "b": 10},
        legend={"orientation": "h", "y": -0.02},
        updatemenus=[{"type": "dropdown", "buttons": buttons, "x": 0, "xanchor": "left", "y": 1.1, "yanchor": "top"}],
    )
    for axis in (figure.update_xaxes, figure.update_yaxes):
        axis(visible=False)
    element: str = figure.to_html(full_html=False, include_plotlyjs=True, config={"responsive": True, "displaylogo": False}, div_id="map")
    return element


def anchor_titles(analysis: Analysis) -> list[str]:
    """Of the items whose anchors are drawn: titles, or ids where there are none."""
    ids = analysis.dataset.items.ids_of(analysis.anchor_items)
    titles = analysis.dataset.titles
    return [str(one) if titles is None else titles[item] or str(one) for item, one in zip(analysis.anchor_items, ids, strict=True)]


def _users(go: Any, one: LatentMap, counts: np.ndarray) -> Any:
    ticks = [tick for tick in (1, 10, 100, 1000) if counts.min() <= tick <= counts.max()]
    return go.Scattergl(
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
            "colorbar": {"title": {"text": "interactions"}, "tickvals": np.log10(ticks), "ticktext": ticks, "thickness": 12},
        },
    )


def _anchors(go: Any, one: LatentMap, titles: list[str]) -> Any:
    assert one.anchors is not None
    return go.Scattergl(
        x=one.anchors[:, 0].round(2),
        y=one.anchors[:, 1].round(2),
        mode="markers",
        name="item anchors",
        text=titles,
        hovertemplate="%{text}<extra></extra>",
        marker={"size": 8, "symbol": "cross-thin", "line": {"width": 1.5, "color": "#D55E00"}},
    )
