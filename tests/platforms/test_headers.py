"""The two sides that may not import each other name the headers alike."""

from ingress import request
from platforms import base


def test_the_ingress_and_the_platforms_mean_the_same_headers() -> None:
    assert (request.EVENT_HEADER, request.RUN_HEADER) == (base.EVENT_HEADER, base.RUN_HEADER)
