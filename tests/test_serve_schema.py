"""The API against its own description: generated valid and invalid requests get documented answers."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from nearfar.live.server.app import make_app
from nearfar.live.server.limits import Limits
from nearfar.live.server.security import Access
from nearfar.live.sinks.prometheus import Metrics
from servers import FAULTY, a_plant, listen

EXAMPLES = 8
CHECKS = (
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
)


@pytest.fixture(scope="module")
def schema_of_the_api(pump3, tmp_path_factory):
    plant, clock = a_plant(pump3, tmp_path_factory.mktemp("schema"), "pump3")
    listen(plant, FAULTY, machine="pump3")
    app = make_app(
        plant,
        Access((), frozenset({"testserver"})),
        clock=clock,
        limits=Limits(per_s=1e6, burst=10**6),
        metrics=Metrics(),
    )
    yield schemathesis.openapi.from_asgi("/openapi.json", app)
    plant.close()
    plant.history.close()


@pytest.mark.slow
def test_answers_are_as_described(schema_of_the_api):
    seen = set()
    for found in schema_of_the_api.get_all_operations():
        operation = found.ok()
        if operation.path == "/v1/stream":  # it never ends
            continue

        @seed(5)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=st.one_of(operation.as_strategy(), operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)))
        def ask(case):
            answer = case.call_and_validate(checks=CHECKS)
            seen.add((case.method, case.path, answer.status_code))

        ask()
    answered = {(method, path) for method, path, _ in seen}
    well = {(method, path) for method, path, status in seen if status < 300}
    assert len(answered) > 20 and len(well) > 12, sorted(answered - well)
