# task_cc1.py

from examples.communication import CommunicationChannel
import numpy as np
import psyrun
from psyrun import Param

pspace = Param(D=np.arange(2, 5)) * Param(N=[10, 50, 100])
min_items = 1
max_jobs = 6

def execute(**kwargs):
    return CommunicationChannel().run(**kwargs)
