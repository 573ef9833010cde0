"""Places where tasks run: real container engines and a real Kubernetes. A test runs on all, or on those that it names:

pytestmark = pytest.mark.places(*LOCAL)

With pytest.mark.oldest it runs on the oldest Kubernetes too.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from tesk.settings import Settings
from tests.engines.gates import Gates, gates
from tests.engines.places import (
    DISRUPTED,
    KUBERNETES,
    LOCAL,
    OLDEST,
    POD,
    RESTRICTED,
    KubernetesPlace,
    LocalPlace,
    Place,
    PodPlace,
    kubernetes_place,
    local_place,
)
from tests.engines.running import Tesk, started
from tests.engines.serving import Server, serving
from tests.servers import cluster as clusters
from tests.servers import holding as servers
from tests.servers.holding import Holding
from tests.servers.silent import Silent, silent, without_images


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" not in metafunc.fixturenames:
        return
    named = metafunc.definition.get_closest_marker("places")
    chosen = named.args if named else (*LOCAL, *KUBERNETES, *POD)
    if metafunc.definition.get_closest_marker("oldest") and not os.environ.get("TESK_TEST_KUBECONFIG"):
        chosen += OLDEST
    metafunc.parametrize("place", chosen, indirect=True, scope="session")


@contextlib.contextmanager
def cluster_of(request: pytest.FixtureRequest, folder: Path) -> Iterator[clusters.Cluster]:
    """The cluster of a place. One that is its own ends with the place: a node that has nothing to do keeps a tenth of a
    core busy."""
    if request.param in DISRUPTED:
        with clusters.cluster(folder, f"test-{clusters.RUN}-{os.environ.get('PYTEST_XDIST_WORKER', 'own')}") as own:
            yield own
    elif request.param in OLDEST:
        with clusters.cluster(folder, f"test-{clusters.RUN}-oldest", version="oldest") as oldest:
            yield oldest
    else:
        yield request.getfixturevalue("cluster")


@pytest.fixture(scope="session")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param not in LOCAL:
        security = "restricted" if request.param in RESTRICTED else "baseline"
        kind = PodPlace if request.param in POD else KubernetesPlace
        with cluster_of(request, folder) as its, kubernetes_place(its, folder, security, kind) as there:
            yield there
    else:
        with local_place(request.param, folder) as here:
            yield here


@pytest.fixture
def engine_socket(place: Place) -> Path:
    """The socket of a container engine."""
    assert isinstance(place, LocalPlace)
    return place.socket


@pytest.fixture
def settings(place: Place, tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    """Those of the place. Some may be changed: pytest.mark.parametrize("settings", [{"retries": 1}], indirect=True)."""
    (tmp_path / "data").mkdir()
    return msgspec.structs.replace(place.settings(tmp_path / "data"), **getattr(request, "param", {}))


@pytest.fixture
async def tesk(settings: Settings, place: Place) -> AsyncIterator[Tesk]:
    """A running tesk; a test fails that leaves anything behind."""
    async with started(settings) as running:
        yield running
        assert await place.leftovers(settings) == []


@pytest.fixture
async def server(settings: Settings, place: Place) -> AsyncIterator[Server]:
    """A running `tesk serve`; a test fails that leaves anything behind."""
    async with serving(settings) as running:
        yield running
        assert await place.leftovers(settings) == []


@pytest.fixture
def doors(place: Place) -> Iterator[Gates]:
    """Gates that pods of the cluster reach."""
    assert isinstance(place, KubernetesPlace)
    with gates(place.cluster.host) as running:
        yield running


@pytest.fixture
def holding(place: Place) -> Iterator[Holding]:
    """A web server for pods of the cluster that holds whoever comes first."""
    assert isinstance(place, KubernetesPlace)
    with servers.holding(place.cluster.host) as running:
        yield running


@pytest.fixture
def shared(settings: Settings) -> Path:
    """A folder that file: URLs may use."""
    return Path(settings.file_roots[0])


@pytest.fixture
def silent_server(place: Place) -> Iterator[Silent]:
    """A server that accepts connections and never answers."""
    with silent(place.host) as server:
        yield server


@pytest.fixture
def silent_registry(place: Place) -> Iterator[Silent]:
    """A registry from which an image is being pulled for ever. An engine of this machine gives up on one that does not
    answer at all; a cluster, which would have to be told to trust another, tries again."""
    with (without_images if isinstance(place, LocalPlace) else silent)(place.host) as server:
        yield server
