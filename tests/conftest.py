"""What tests of several folders share: a real Kubernetes, started when the first of them asks for it."""

from collections.abc import Iterator

import pytest

from tests.servers import cluster as clusters


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[clusters.Cluster]:
    with clusters.cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running
