"""The kept eigenvalues of the Hessian, signed, with their Ritz residuals."""

import numpy as np
import plotly.graph_objects as go

from influence_core.charts import theme
from influence_core.charts.signed import bars, signed


def spectrum(values: np.ndarray, residuals: np.ndarray) -> go.Figure:
    """Draw eigenvalues [k] as signed bars in their order, with Ritz residuals [k] as error bars."""
    count, negative = len(values), int((values < 0).sum())
    if not count:
        return theme.words("No eigenvalue is kept")
    if negative:
        what = f"{negative} of {count} kept eigenvalues {'is' if negative == 1 else 'are'} negative"
        title = f"{what}, the smallest {signed(float(values.min()))}"
    else:
        title = f"None of {count} kept eigenvalues is negative, the smallest {signed(float(values.min()))}"
    hovers = [
        f"eigenvalue {place}: {signed(float(value))}, Ritz residual {theme.number(float(residual))}"
        for place, (value, residual) in enumerate(zip(values, residuals, strict=True), start=1)
    ]
    alt = f"Bar chart of eigenvalues with Ritz residuals as error bars: {title[0].lower()}{title[1:]}."
    figure = theme.styled(go.Figure(), title, alt, x="eigenvalue, by |λ|", y="λ (asinh scale)")
    bars(figure, range(1, count + 1), values, hovers, residuals)
    return figure
