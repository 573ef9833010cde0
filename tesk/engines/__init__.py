"""Where tasks run: the engines behind one protocol, chosen by the setting `engine`.

Nothing is imported before it is needed: some of what is below starts once for every executor.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tesk.engines.base import Engine
    from tesk.settings import Settings


def open_engine(settings: "Settings") -> "Engine":
    """The engine that the settings name, not yet opened; what it needs is imported when it is opened."""
    if settings.engine == "kubernetes":
        from tesk.engines.kubernetes.engine import KubernetesEngine

        return KubernetesEngine(settings)
    from tesk.engines.local.engine import LocalEngine

    return LocalEngine(settings)
