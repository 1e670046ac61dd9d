"""The cost of a request, checked against figures computed by hand, and never invented."""

import json
import re
from dataclasses import asdict, replace

import pytest
from pydantic import ValidationError

from components.costs import Prices, Speed, TokenPrice, Usage, Work, bill, total
from components.store.manifest import ScorecardManifest

LOGGED = Usage(input=400, output=50, requests=120, source="logged usage")
SPEED = Speed(
    requests=100,
    input_tokens=20_000,
    output_tokens=3_000,
    seconds=90,  # on the clock, while others used the machine, too
    machine="cpu x86_64",
    work=Work(72, "core", 2),
)
PRICES = Prices(production=TokenPrice(input=2.5, output=10), hardware_per_hour=0.5, utilization=1)
TRAINING = Work(3600, "core", 2)


def test_a_request_is_priced_by_tokens_in_production_and_by_the_hour_on_our_own_machine() -> None:
    found = bill(PRICES, production=LOGGED, challenger=SPEED, training=TRAINING)
    assert found.production.value == pytest.approx((400 * 2.5 + 50 * 10) / 1e6)  # 0.0015
    assert found.challenger.value == pytest.approx(0.5 * 0.36 / 3600)  # 0.00005
    assert found.fraction.value == pytest.approx(0.00005 / 0.0015)
    assert found.training.value == pytest.approx(0.25)
    assert found.payback.value == 173  # 0.25 / 0.00145 = 172.4


def test_each_figure_has_its_formula() -> None:
    found = bill(PRICES, production=LOGGED, challenger=SPEED, training=TRAINING)
    assert found.production.how == (
        "(400.0 tokens in x 2.5 + 50.0 out x 10) / 1,000,000 (means of 120 requests, logged usage)"
    )
    assert found.challenger.how == (
        "0.5 an hour / 2 cores x 0.72 core-seconds / 3600 s / 1 utilization, assumed in the "
        "workload's file (100 requests took 72 core-seconds in batches on cpu x86_64, CPU time)"
    )
    assert found.training.how == "0.5 an hour / 2 cores x 3,600 core-seconds / 3600 s (CPU time)"


def test_prices_without_that_of_cache_writes_are_written_as_before_there_was_one() -> None:
    price: dict[str, float | None] = {"input": 2.5, "cached_input": None, "output": 10.0}
    assert TokenPrice(input=2.5, output=10).model_dump(mode="json") == price
    dearer = TokenPrice(input=2.5, cache_write=0, output=10)
    assert TokenPrice.model_validate(dearer.model_dump()) == dearer


def test_tokens_that_the_provider_had_cached_have_their_own_price() -> None:
    cached = replace(LOGGED, cached=300)
    cheaper = Prices(production=TokenPrice(input=2.5, cached_input=0.5, output=10))
    priced = bill(cheaper, production=cached, challenger=None, training=None).production
    assert priced.value == pytest.approx((100 * 2.5 + 300 * 0.5 + 50 * 10) / 1e6)
    assert priced.how.startswith("(100.0 tokens in x 2.5 + 300.0 cached x 0.5 + 50.0 out x 10)")
    in_full = bill(PRICES, production=cached, challenger=None, training=None).production
    assert in_full.value == pytest.approx((400 * 2.5 + 50 * 10) / 1e6)
    assert (
        "300.0 of the tokens in were cached, and are priced as the others, since c" in in_full.how
    )
    written = replace(cached, written=60)
    both = Prices(production=TokenPrice(input=2.5, cached_input=0.25, cache_write=3, output=10))
    priced = bill(both, production=written, challenger=None, training=None).production
    assert priced.value == pytest.approx((40 * 2.5 + 300 * 0.25 + 60 * 3 + 50 * 10) / 1e6)
    assert "(40.0 tokens in x 2.5 + 300.0 cached x 0.25 + 60.0 cache writes x 3 +" in priced.how
    as_input = bill(cheaper, production=written, challenger=None, training=None).production
    assert as_input.value == pytest.approx((100 * 2.5 + 300 * 0.5 + 50 * 10) / 1e6)
    assert "60.0 of the tokens in went into the cache, and are priced as the" in as_input.how
    free = Prices(production=TokenPrice(input=2.5, cached_input=0, output=10))
    assert bill(free, production=cached, challenger=None, training=None).production.value == (
        pytest.approx((100 * 2.5 + 50 * 10) / 1e6)
    )


def test_wall_time_does_not_change_the_price() -> None:
    idle, loaded = (
        bill(PRICES, production=None, challenger=replace(SPEED, seconds=seconds), training=None)
        for seconds in (40, 400)
    )
    assert idle.challenger == loaded.challenger


def test_the_default_utilization_is_a_half_and_marked_as_an_assumption() -> None:
    unnamed = Prices(production=PRICES.production, hardware_per_hour=0.5)
    found = bill(unnamed, production=LOGGED, challenger=SPEED, training=None).challenger
    assert found.value == pytest.approx(2 * 0.00005)
    assert "/ 0.5 utilization, assumed since cost.utilization is not set" in found.how


def test_a_gpu_is_priced_by_its_wall_time_and_says_so() -> None:
    on_gpu = replace(SPEED, work=Work(9, "GPU", 4))
    found = bill(PRICES, production=None, challenger=on_gpu, training=None).challenger
    assert found.value == pytest.approx(0.5 / 4 * 0.09 / 3600)
    assert "0.5 an hour / 4 GPUs x 0.09 GPU-seconds" in found.how
    assert "wall time of GPUs that nothing else used" in found.how


def test_a_scorecard_without_cpu_time_has_no_price_and_says_why() -> None:
    older = replace(SPEED, work=None)
    found = bill(PRICES, production=LOGGED, challenger=older, training=None)
    assert found.challenger.value is None
    assert found.challenger.how.startswith("not measured: its scorecard is older than")
    assert found.break_even is None
    hosted = Prices(challenger=TokenPrice(input=0.1, output=0.2))
    assert bill(hosted, production=None, challenger=older, training=None).challenger.value


def test_a_scorecards_work_is_read_as_it_was_written() -> None:
    record = {"kind": "scorecard", "key": "k", "created_at": "2026-01-01", "files": {}, "base": "b"}
    text = json.dumps({**record, "speed": asdict(SPEED)})
    assert ScorecardManifest.model_validate_json(text).speed == SPEED
    assert ScorecardManifest.model_validate(record).speed is None


def test_works_on_one_machine_are_summed_and_unknown_ones_are_not_left_out() -> None:
    assert total([TRAINING, Work(0.5, "core", 2)]) == Work(3600.5, "core", 2)
    assert total([TRAINING, None]) is None
    assert total([TRAINING, Work(1, "GPU", 2)]) is None
    assert total([]) is None


def test_both_cost_the_same_at_the_break_even() -> None:
    half = PRICES.model_copy(update={"utilization": 0.5})
    even = bill(half, production=LOGGED, challenger=SPEED, training=None).break_even
    assert even is not None
    assert even.hourly == pytest.approx(3600 / 0.36 * 0.5)

    def at(**changes: object) -> float | None:
        prices = half.model_copy(update=changes)
        return bill(prices, production=LOGGED, challenger=SPEED, training=None).fraction.value

    assert at(utilization=even.least_utilization) == pytest.approx(1)
    scaled = TokenPrice(input=2.5 * even.price_factor, output=10 * even.price_factor)
    assert at(production=scaled) == pytest.approx(1)


def test_prices_by_tokens_have_no_utilization_to_break_even_at() -> None:
    hosted = Prices(production=PRICES.production, challenger=TokenPrice(input=0.1, output=0.2))
    assert bill(hosted, production=LOGGED, challenger=SPEED, training=None).break_even is None


def test_a_hosted_adapter_is_priced_by_its_own_tokens() -> None:
    prices = Prices(challenger=TokenPrice(input=0.1, output=0.2))
    found = bill(prices, production=None, challenger=SPEED, training=None)
    assert found.challenger.value == pytest.approx((200 * 0.1 + 30 * 0.2) / 1e6)


def test_a_machine_that_idles_half_the_time_costs_twice_as_much_per_request() -> None:
    half = PRICES.model_copy(update={"utilization": 0.5})
    busy, idle = (
        bill(prices, production=None, challenger=SPEED, training=None).challenger.value
        for prices in (PRICES, half)
    )
    assert busy is not None
    assert idle == pytest.approx(2 * busy)


@pytest.mark.parametrize(
    ("prices", "figure", "said"),
    [
        pytest.param({}, "production", "set cost.production.input and", id="no-prices"),
        pytest.param({}, "challenger", "set cost.hardware_per_hour, or", id="no-hardware"),
        pytest.param({}, "training", "set cost.training_per_hour, or", id="no-training"),
        pytest.param({}, "fraction", "needs the price of a request of both", id="no-fraction"),
        pytest.param({}, "payback", "needs the cost of training and", id="no-payback"),
    ],
)
def test_a_missing_price_is_named_and_not_invented(
    prices: dict[str, object], figure: str, said: str
) -> None:
    found = bill(
        Prices.model_validate(prices), production=LOGGED, challenger=SPEED, training=TRAINING
    )
    amount = getattr(found, figure)
    assert amount.value is None
    assert said in amount.how


def test_unmeasured_costs_are_not_priced() -> None:
    found = bill(PRICES, production=None, challenger=None, training=None)
    assert found.production.how == "the tokens of the logged answers are not known"
    assert "not measured" in found.challenger.how
    assert "not measured" in found.training.how


def test_a_dearer_challenger_never_pays_for_itself() -> None:
    dear = PRICES.model_copy(update={"hardware_per_hour": 40.0})
    found = bill(dear, production=LOGGED, challenger=SPEED, training=TRAINING)
    assert found.payback.value is None
    assert found.payback.how == "never: a request costs no less than in production"


@pytest.mark.parametrize(
    ("prices", "said"),
    [
        pytest.param(
            {"challenger": {"input": 1, "output": 1}, "hardware_per_hour": 1},
            "set challenger or hardware_per_hour",
            id="two-prices-for-one-thing",
        ),
        pytest.param({"utilization": 0.5}, "set both", id="a-share-of-nothing"),
        pytest.param({"production": {"input": -1, "output": 1}}, "greater than", id="negative"),
        pytest.param({"production": {"input": 1}}, "output", id="half-a-price"),
    ],
)
def test_invalid_prices_are_refused(prices: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        Prices.model_validate(prices)
