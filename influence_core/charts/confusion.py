"""The confusion matrix: counts of (true, predicted), and a figure whose cells can be clicked."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from influence_core.charts import theme

_MAX_CLASSES = 44  # 44² cells are the most points that a chart draws
_FEW = 4  # classes up to which the matrix has the height of all charts, and zeros are written out
_TICK_LENGTH = 20  # characters of a name beside the matrix; hover and click have all of it


def confusion_counts(
    labels: Sequence[str] | Sequence[int] | np.ndarray,
    predictions: Sequence[str] | Sequence[int] | np.ndarray,
    names: Sequence[str],
) -> pd.DataFrame:
    """Count (true, predicted) pairs.

    Args:
        labels: [N] true classes, as names or as class numbers.
        predictions: [N] predicted classes, likewise.
        names: [C] the classes' names, in the classifier's order.

    Returns:
        [C, C] integers; rows are true classes, columns predicted ones.

    Raises:
        ValueError: a class that is not in ``names``, or lengths that differ.
    """
    true, predicted = _numbers(labels, names), _numbers(predictions, names)
    if len(true) != len(predicted):
        raise ValueError(f"{len(true)} labels but {len(predicted)} predictions")
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (true, predicted), 1)
    return pd.DataFrame(
        counts, index=pd.Index(list(names), name="true"), columns=pd.Index(list(names), name="predicted")
    )


def confusion(
    labels: Sequence[str] | Sequence[int] | np.ndarray,
    predictions: Sequence[str] | Sequence[int] | np.ndarray,
    names: Sequence[str],
    revision: str = "",
) -> go.Figure:
    """Draw the confusion matrix, true classes down, predicted ones across; arguments as `confusion_counts`.

    Two traces: the heatmap with the counts as texts, and over it invisible markers in the cells'
    centres, because plotly selects markers but not cells. Both carry ``customdata`` [true, predicted]
    (names as given, not escaped). With more than 44 classes those with the most errors are drawn.
    """
    counts = confusion_counts(labels, predictions, names)
    total = int(counts.to_numpy().sum())
    if total == 0:
        return theme.words("No predictions to count", revision)
    title = _title(counts)
    if len(names) > _MAX_CLASSES:
        title += f"; the {_MAX_CLASSES} of {len(names)} classes with the most errors are shown"
        counts = _most_confused(counts)
    shown = [str(name) for name in counts.index]
    values = counts.to_numpy()
    size = len(shown)
    pairs = [[[true, predicted] for predicted in shown] for true in shown]
    figure = go.Figure()
    figure.add_trace(
        go.Heatmap(
            z=values,
            x=list(range(size)),
            y=list(range(size)),
            text=[[f"{count:,}" if count or size <= _FEW else "" for count in row] for row in values],
            texttemplate="%{text}",
            customdata=pairs,
            colorscale=[list(stop) for stop in theme.COUNTS],
            zmin=0,
            showscale=False,
            xgap=2,
            ygap=2,
            hoverinfo="skip",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=[column for _ in range(size) for column in range(size)],
            y=[row for row in range(size) for _ in range(size)],
            customdata=[pair for row in pairs for pair in row],
            hovertext=[
                theme.inert(f"true {theme.label(t)}, predicted {theme.label(p)}: {values[i, j]:,}")
                for i, t in enumerate(shown)
                for j, p in enumerate(shown)
            ],
            hoverinfo="text",
            mode="markers",
            marker={
                "symbol": "square-open",
                "size": min(44, max(8, 300 // size)),
                "color": theme.NEUTRAL,
                "opacity": 0,
                "line": {"width": 3},
            },
            selected={"marker": {"opacity": 1}},
            unselected={"marker": {"opacity": 0}},
            showlegend=False,
        )
    )
    alt = f"Confusion matrix of {total:,} rows and {len(names)} classes: {title[0].lower()}{title[1:]}."
    theme.styled(figure, title, alt, x="predicted", y="true", revision=revision)
    ticks = {
        "tickmode": "array",
        "tickvals": list(range(size)),
        "ticktext": [theme.inert(theme.label(name, _TICK_LENGTH)) for name in shown],
        "showgrid": False,
    }
    figure.update_xaxes(range=[-0.5, size - 0.5], side="bottom", **ticks)
    figure.update_yaxes(range=[size - 0.5, -0.5], **ticks)
    # A click anywhere in a cell is nearest to that cell's marker, so it selects it.
    if size > _FEW:
        figure.update_layout(height=min(800, 150 + 28 * size))
        figure.update_xaxes(tickangle=90)  # aslant, the last name would be left out
    figure.update_layout(clickmode="event+select", hoverdistance=-1, dragmode=False)
    return figure


def _numbers(classes: Sequence[str] | Sequence[int] | np.ndarray, names: Sequence[str]) -> np.ndarray:
    by_name: dict[str | int, int] = {name: number for number, name in enumerate(names)}
    by_name.update({number: number for number in range(len(names))})
    numbers = np.empty(len(classes), dtype=np.int64)
    for row, value in enumerate(classes):
        if value not in by_name:
            raise ValueError(f"class {value!r} of row {row} is not one of the {len(names)} classes")
        numbers[row] = by_name[value]
    return numbers


def _title(counts: pd.DataFrame) -> str:
    values = counts.to_numpy()
    errors = values.copy()
    np.fill_diagonal(errors, 0)
    total, wrong = int(values.sum()), int(errors.sum())
    if wrong == 0:
        return f"All {total:,} predicted right"
    row, column = divmod(int(errors.argmax()), len(counts))
    true, predicted = theme.label(str(counts.index[row])), theme.label(str(counts.columns[column]))
    return f"{wrong:,} of {total:,} wrong, most often {true} taken for {predicted} ({int(errors.max()):,})"


def _most_confused(counts: pd.DataFrame) -> pd.DataFrame:
    values = counts.to_numpy()
    errors = values.sum(axis=0) + values.sum(axis=1) - 2 * values.diagonal()
    kept = np.sort(np.argsort(-errors, kind="stable")[:_MAX_CLASSES])
    return counts.iloc[kept, kept]
