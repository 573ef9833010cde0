"""What fits beside what on this machine (pure)."""

from msgspec import Struct

from tesk.places.base import ALL_ACTIVE, Demand, Denial, Load


class Capacity(Struct, frozen=True):
    """What may run at once."""

    cpu_cores: float
    ram_gb: float
    tasks: int = 0
    """0: without limit."""

    def admission(self, demand: Demand, load: Load) -> Denial | None:
        """None where there is room for one more task beside what is active; else why not."""
        if demand.cpu_cores > self.cpu_cores:
            words = f"the task asks for {demand.cpu_cores:g} cores; {self.cpu_cores:g} can be had here"
            return Denial(words, "itself for ever")
        if demand.ram_gb > self.ram_gb:
            words = f"the task asks for {demand.ram_gb:g} GiB of memory; {self.ram_gb:.4g} GiB can be had here"
            return Denial(words, "itself for ever")
        if self.tasks and load.tasks >= self.tasks:
            return ALL_ACTIVE
        kinds = (
            (demand.cpu_cores, load.cpu_cores, self.cpu_cores, "cores"),
            (demand.ram_gb, load.ram_gb, self.ram_gb, "GiB of memory"),
        )
        for asked, taken, most, unit in kinds:
            if asked + taken > most + 1e-9:
                return Denial(f"it asks for {asked:g} {unit}, and tasks that run have {taken:.4g} of {most:.4g}")
        return None
