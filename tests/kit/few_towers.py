"""A small sweep without rivals: a few towers, where what is tested does not need more."""

from query.evaluation.grid.expand import expand
from query.evaluation.grid.read import read_grid
from query.evaluation.running.run import run
from tests.kit.small_sweep import SmallSweep


class FewTowers(SmallSweep):
    """As `SmallSweep`; `run` returns the record."""

    def run(self, again=False):
        """Run what the grid names."""
        grid = read_grid(self.grid)
        named = [condition for condition in expand(grid) if condition.loc[:1] != ("rivals",)]
        self.out.root.mkdir(exist_ok=True)
        return run(grid, named, self.out, again)
