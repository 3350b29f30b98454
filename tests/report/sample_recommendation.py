"""A recommendation as its page sees it: three methods, of which two are recommended."""

from __future__ import annotations

from tunecast.recommender.recommendation import Prospect, Recommendation, ZeroShotLoss
from tunecast.records import Pipeline


def prospect(method: str, rate: float, loss: float, seconds: float, price: float | None) -> Prospect:
    hours = seconds / 3600
    pipeline = Pipeline(method, {"learning_rate": rate, "per_device_train_batch_size": 4})
    return Prospect(
        pipeline, loss, 0.8 * loss, 1.3 * loss,
        1 - loss / 4.0, 1 - 1.3 * loss / 4.0, 1 - 0.8 * loss / 4.0, 0.01, 100_000, 120,
        hours, 0.5 * hours, 2 * hours, 12.5, None if price is None else price * hours,
        4, True, "", ("<b>It suits the width.</b>",),
    )  # fmt: skip


def sample_recommendation(price: float | None) -> Recommendation:
    considered = tuple(
        prospect(method, rate, loss * (1 + abs(place - 2) / 4), 400.0 * 2**place, price)
        for method, loss in (("full", 1.1), ("ia3", 2.4), ("lora", 1.0))
        for place, rate in enumerate((1e-5, 1e-4, 1e-3))
    )
    recommended = tuple(sorted(considered, key=lambda one: one.predicted_loss)[:2])
    zero_shot = ZeroShotLoss(4.0, "predicted", 3.0, 5.5)
    return Recommendation(
        "smollm2",
        "<i>rows</i>",
        "RTX 4090",
        512,
        recommended,
        considered,
        {3: recommended[0]},
        zero_shot,
        0.8,
        "",
        (),
        ("It is predicted.",),
    )
