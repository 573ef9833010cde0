"""Where tasks run: the places behind one protocol, chosen by the setting `engine`.

Nothing is imported before it is needed: some of what is below starts once for every executor.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tesk.places.base import Place
    from tesk.settings import Settings


def open_place(settings: "Settings") -> "Place":
    """The place that the settings name, not yet opened; what it needs is imported when it is opened."""
    if settings.engine == "kubernetes":
        from tesk.places.kubernetes.place import KubernetesPlace

        return KubernetesPlace(settings)
    from tesk.places.local.place import LocalPlace

    return LocalPlace(settings)
