#!/usr/bin/env python3
"""Writes accountant.csv: ε of k Gaussian releases at noise multiplier z, by PyPI dp-accounting.

    python3 -m venv venv && venv/bin/pip install dp-accounting==0.6.0
    venv/bin/python make_accountant.py > accountant.csv

Column `exact` is the exact curve of the Gaussian mechanism of sensitivity √k at deviation z, which is what k adaptive
releases compose to. Column `pld` composes k releases numerically (privacy loss distributions, pessimistic rounding on a
grid of 1e-4), which shares no formula with the first and bounds it from above. It is left out where ε is 0 or where the
grid would be too large.
"""
from importlib.metadata import version

from dp_accounting import get_epsilon_gaussian
from dp_accounting.dp_event import GaussianDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant

EXPECTED = "0.6.0"


def pld_epsilon(z: float, k: int, delta: float) -> float:
    accountant = PLDAccountant()
    accountant.compose(SelfComposedDpEvent(GaussianDpEvent(z), k))
    return accountant.get_epsilon(delta)


def main() -> None:
    assert version("dp-accounting") == EXPECTED, f"needs dp-accounting {EXPECTED}"
    print(f"# dp-accounting {EXPECTED}; made by make_accountant.py")
    print("z,k,delta,exact,pld")
    for z in (0.3, 0.5, 0.7, 1.0, 1.19, 1.5, 2.0, 2.39, 2.6, 4.0, 8.45, 16.9, 50.0, 100.0):
        for k in (1, 2, 4, 16, 64):
            for delta in (1e-4, 1e-6, 1e-8, 1e-10):
                exact = get_epsilon_gaussian(z / k**0.5, delta, tol=1e-13)
                numeric = "" if exact == 0 or exact > 30 else f"{pld_epsilon(z, k, delta):.9f}"
                print(f"{z},{k},{delta},{exact:.12f},{numeric}")


if __name__ == "__main__":
    main()
