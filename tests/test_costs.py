"""What a request costs: by hand-reckoned figures, and never invented."""

import re

import pytest
from pydantic import ValidationError

from components.costs import Prices, Speed, TokenPrice, Usage, bill

LOGGED = Usage(input=400, output=50, requests=120, source="logged usage")
SPEED = Speed(
    requests=100, input_tokens=20_000, output_tokens=3_000, seconds=36, machine="cpu x86_64"
)
PRICES = Prices(production=TokenPrice(input=2.5, output=10), hardware_per_hour=0.5)


def test_a_request_is_priced_by_tokens_in_production_and_by_the_hour_on_our_own_machine() -> None:
    found = bill(PRICES, production=LOGGED, challenger=SPEED, training_seconds=1800)
    assert found.production.value == pytest.approx((400 * 2.5 + 50 * 10) / 1e6)  # 0.0015
    assert found.challenger.value == pytest.approx(0.5 * 0.36 / 3600)  # 0.00005
    assert found.fraction.value == pytest.approx(0.00005 / 0.0015)
    assert found.training.value == pytest.approx(0.25)
    assert found.payback.value == 173  # 0.25 / 0.00145 = 172.4


def test_each_figure_says_how_it_came_about() -> None:
    found = bill(PRICES, production=LOGGED, challenger=SPEED, training_seconds=1800)
    assert found.production.how == (
        "(400.0 tokens in x 2.5 + 50.0 out x 10) / 1,000,000 (means of 120 requests, logged usage)"
    )
    assert found.challenger.how == (
        "0.5 an hour x 0.36 s / 3600 s (100 requests took 36 s in batches on cpu x86_64)"
    )


def test_a_hosted_adapter_is_priced_by_its_own_tokens() -> None:
    prices = Prices(challenger=TokenPrice(input=0.1, output=0.2))
    found = bill(prices, production=None, challenger=SPEED, training_seconds=None)
    assert found.challenger.value == pytest.approx((200 * 0.1 + 30 * 0.2) / 1e6)


def test_a_machine_that_idles_half_the_time_costs_twice_as_much_a_request() -> None:
    half = PRICES.model_copy(update={"utilization": 0.5})
    busy, idle = (
        bill(prices, production=None, challenger=SPEED, training_seconds=None).challenger.value
        for prices in (PRICES, half)
    )
    assert busy is not None
    assert idle == pytest.approx(2 * busy)


@pytest.mark.parametrize(
    ("prices", "figure", "said"),
    [
        pytest.param({}, "production", "give cost.production.input and", id="no-prices"),
        pytest.param({}, "challenger", "give cost.hardware_per_hour, or", id="no-hardware"),
        pytest.param({}, "training", "give cost.training_per_hour, or", id="no-training"),
        pytest.param({}, "fraction", "wants the price of a request of both", id="no-fraction"),
        pytest.param({}, "payback", "wants the cost of training and", id="no-payback"),
    ],
)
def test_a_missing_price_is_named_and_not_invented(
    prices: dict[str, object], figure: str, said: str
) -> None:
    found = bill(
        Prices.model_validate(prices), production=LOGGED, challenger=SPEED, training_seconds=60
    )
    amount = getattr(found, figure)
    assert amount.value is None
    assert said in amount.how


def test_what_was_not_measured_is_not_priced() -> None:
    found = bill(PRICES, production=None, challenger=None, training_seconds=None)
    assert found.production.how == "the tokens of the logged answers are not known"
    assert "not measured" in found.challenger.how
    assert "not kept" in found.training.how


def test_what_costs_more_than_production_never_pays_for_itself() -> None:
    dear = PRICES.model_copy(update={"hardware_per_hour": 40.0})
    found = bill(dear, production=LOGGED, challenger=SPEED, training_seconds=1800)
    assert found.payback.value is None
    assert found.payback.how == "never: a request costs no less than in production"


@pytest.mark.parametrize(
    ("prices", "said"),
    [
        pytest.param(
            {"challenger": {"input": 1, "output": 1}, "hardware_per_hour": 1},
            "give challenger or hardware_per_hour",
            id="two-prices-for-one-thing",
        ),
        pytest.param({"utilization": 0.5}, "give both", id="a-share-of-nothing"),
        pytest.param({"production": {"input": -1, "output": 1}}, "greater than", id="negative"),
        pytest.param({"production": {"input": 1}}, "output", id="half-a-price"),
    ],
)
def test_prices_that_make_no_sense_are_refused(prices: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        Prices.model_validate(prices)
