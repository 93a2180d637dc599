"""Pure: a study's history in, the next action out.

The same study and history always give the same action: nothing here remembers anything, every random draw is seeded from
the definition's seed and the trial's number. So a replay after a crash changes nothing, and `simulate` runs the same code
without Ray. Optuna lives here, and is imported only when a study models its trials.
"""

from service.search.actions import Action, Cut, Done, Promote, Resume, Start, Wait
from service.search.decide import next_action
from service.search.simulate import Simulation, simulate

__all__ = ["Action", "Cut", "Done", "Promote", "Resume", "Simulation", "Start", "Wait", "next_action", "simulate"]
