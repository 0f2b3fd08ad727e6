"""A communication channel of spiking neurons, the model of the tutorial.

It needs nengo, which ``pip install 'psyrun[examples]'`` brings.

Examples
--------
>>> from examples.communication import CommunicationChannel
>>> sorted(CommunicationChannel().run(D=2, N=10, T=0.1, verbose=False))
['rmse', 'sim_speed']
"""

# ruff: noqa: N803 (the parameters have the names of the tutorial)

from __future__ import annotations

import math
import secrets
import time
from datetime import datetime, timedelta
from typing import Any

import nengo
import numpy as np
import numpy.typing as npt
from nengo.builder import Model

Signal = npt.NDArray[np.float64]

# The order in which a BLAS adds up, and with it the last digit, depends on how many threads it has.
_DIGITS = 12


class CommunicationChannel:
    """How well a chain of spiking ensembles passes a constant vector on.

    ::

        input -> layer 1 -> ... -> layer L -> output

    Every arrow is a synapse (an exponential low-pass filter), so even perfect layers would deliver the input late and
    smoothed. That is what the output is compared with; what remains is the error of the neurons.
    """

    def run(
        self,
        D: int = 2,
        L: int = 2,
        N: int = 100,
        pstc: float = 0.01,
        T: float = 1.0,
        dt: float = 0.001,
        seed: int = 1,
        verbose: bool = True,
    ) -> dict[str, float]:
        """Simulate the channel once.

        Parameters
        ----------
        D : int
            Dimensions of the vector.
        L : int
            Layers between input and output.
        N : int
            Neurons in each layer.
        pstc : float
            Time constant of every synapse, in seconds.
        T, dt : float
            How long to simulate, and the length of one step, in simulated seconds.
        seed : int
            Draws the vector and the neurons; with the same seed ``rmse`` is the same.
        verbose : bool
            Whether to print the parameters and what came out.

        Returns
        -------
        dict
            ``'rmse'``, the root mean square error over time and dimensions; the vector has length 1.
            ``'sim_speed'``, simulated seconds per second of real time, without the time to build the model.
        """
        parameters: dict[str, Any] = {
            "D": int(D),
            "L": int(L),
            "N": int(N),
            "pstc": float(pstc),
            "T": float(T),
            "dt": float(dt),
            "seed": int(seed),
        }
        if verbose:
            print(f"running {type(self).__name__}#{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(4)}", flush=True)

        given, received, seconds = self._simulate(**parameters)
        expected = _passed_on(given, parameters["L"] + 1, parameters["pstc"], parameters["dt"])
        rmse = float(np.sqrt(np.mean((received - expected) ** 2)))
        result = {"rmse": round(rmse, _DIGITS), "sim_speed": parameters["T"] / seconds}

        if verbose:
            lines = [f"Simulation finished in {timedelta(seconds=math.ceil(seconds))}."]
            lines += [f"_{name} = {value!r}" for name, value in parameters.items()]
            lines += [f"{name} = {value!r}" for name, value in result.items()]
            print("\n".join(lines), flush=True)
        return result

    def _simulate(
        self,
        D: int,
        L: int,
        N: int,
        pstc: float,
        T: float,
        dt: float,
        seed: int,
    ) -> tuple[Signal, Signal, float]:
        """Return what went in and what came out, both of shape (steps, D), and the seconds that it took."""
        vector = np.random.default_rng(seed).standard_normal(D)
        vector /= np.linalg.norm(vector)

        network = nengo.Network(seed=seed)
        with network:
            source: Any = nengo.Node(vector)
            end = source
            for _ in range(L):
                layer = nengo.Ensemble(n_neurons=N, dimensions=D)
                nengo.Connection(end, layer, synapse=pstc)
                end = layer
            given = nengo.Probe(source, synapse=None)
            received = nengo.Probe(end, synapse=pstc)

        # A model of our own has no decoder cache: that is a directory which all processes of a user share and lock,
        # and nengo warns when it finds it locked. It warns too when it wants SciPy to optimise with, which in a network
        # this small gains a fifth at most.
        with nengo.Simulator(network, model=Model(dt=dt), optimize=False, progress_bar=False) as simulator:
            start = time.perf_counter()
            simulator.run(T)
            seconds = time.perf_counter() - start
            return np.array(simulator.data[given]), np.array(simulator.data[received]), seconds


def _passed_on(signal: Signal, synapses: int, pstc: float, dt: float) -> Signal:
    """Return what arrives of a signal of shape (steps, D) after so many synapses in a row and no neurons between.

    A synapse filters, starting from zero, and what it delivers is read one step later.
    """
    for _ in range(synapses):
        filtered = nengo.Lowpass(pstc).filt(signal, dt=dt, y0=0)
        signal = np.concatenate([np.zeros_like(filtered[:1]), filtered[:-1]])
    return signal
