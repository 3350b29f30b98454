"""Finetuning scaling laws: predict the effect of more data, a larger model or another method, with intervals.

>>> table = read_table("runs.csv", by=["model"])                           # doctest: +SKIP
>>> forecast(table, data_sizes=[100_000, 1_000_000]).forecasts[0].loss     # doctest: +SKIP

Laws are fitted only to end points of complete learning-rate schedules.
"""

from tunecast.scaling.advice import Advice
from tunecast.scaling.crossover import Crossing, Root, crossover
from tunecast.scaling.decision import Option, Prices, cheapest
from tunecast.scaling.factors import factor_names
from tunecast.scaling.fitting import Fit, fit
from tunecast.scaling.forecasting import Forecast, ForecastReport, forecast
from tunecast.scaling.metrics import MetricForecast, MetricReport, Relation, forecast_metric, relations
from tunecast.scaling.model_selection import Ranked, select
from tunecast.scaling.models import LAWS
from tunecast.scaling.reading import read_table
from tunecast.scaling.stored import read_store
from tunecast.scaling.table import Curve, LossRow, LossTable, build_table, group_name, table_of_points

__all__ = [
    "LAWS",
    "Advice",
    "Crossing",
    "Curve",
    "Fit",
    "Forecast",
    "ForecastReport",
    "LossRow",
    "LossTable",
    "MetricForecast",
    "MetricReport",
    "Option",
    "Prices",
    "Ranked",
    "Relation",
    "Root",
    "build_table",
    "cheapest",
    "crossover",
    "factor_names",
    "fit",
    "forecast",
    "forecast_metric",
    "group_name",
    "read_store",
    "read_table",
    "relations",
    "select",
    "table_of_points",
]
